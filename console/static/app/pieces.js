// Small pieces that all views are made of.
import { html, useState } from "./html.js";
import * as figures from "./figures.js";
import { href } from "./url_state.js";
import { inOneLine, safeLink } from "./visible.js";
import { INTEGRITIES, OUTCOMES, SEVERITIES, STATUSES, named } from "./words.js";

/** A name from outside: in one line, isolated, so that no direction of writing reaches its neighbours. */
export function Name({ of, none = figures.UNKNOWN, most = 80 }) {
  if (of === null || of === undefined || of === "") return html`<span class="none">${none}</span>`;
  return html`<bdi class="name" title=${of.length > 24 ? inOneLine(of, 1000) : undefined}>${inOneLine(of, most)}</bdi>`;
}

export function Time({ at, format = figures.time }) {
  if (!Number.isFinite(at)) return html`<span class="none">${figures.UNKNOWN}</span>`;
  return html`<time datetime=${figures.iso(at)} title=${figures.iso(at)}>${format(at)}</time>`;
}

export const Chip = ({ tone = "quiet", title, children }) => html`<span class=${`chip chip-${tone}`} title=${title}>${children}</span>`;

export function StatusChip({ status }) {
  const [label, sentence] = STATUSES[status] ?? [status ?? figures.UNKNOWN, ""];
  const tone = { open: "live", failed: "bad", incomplete: "warn", abandoned: "warn" }[status] ?? "quiet";
  return html`<${Chip} tone=${tone} title=${sentence}>${inOneLine(label, 40)}<//>`;
}

export function IntegrityChip({ integrity }) {
  const [label, tone, sentence] = named(INTEGRITIES, integrity);
  return html`<${Chip} tone=${tone} title=${sentence}>${inOneLine(label, 40)}<//>`;
}

export function SeverityChip({ severity }) {
  return html`<${Chip} tone=${SEVERITIES[severity] ?? "quiet"}>${severity ? inOneLine(severity, 40) : "no severity"}<//>`;
}

export function OutcomeChip({ outcome }) {
  const [label, tone, sentence] = named(OUTCOMES, outcome);
  return html`<${Chip} tone=${tone} title=${sentence}>${inOneLine(label, 40)}<//>`;
}

export function ResponseLink({ id, children }) {
  if (!id) return html`<span class="none">no response id</span>`;
  return html`<a class="response-link" href=${href({ view: "response", id })}>${children ?? html`<${Name} of=${id} most=${64} />`}</a>`;
}

/** A link to another site, if its address is harmless; else the words alone. */
export function OutsideLink({ to, children }) {
  const address = safeLink(to);
  if (!address) return children;
  return html`<a href=${address} target="_blank" rel="noopener noreferrer">${children}<span class="unseen"> (in a new tab)</span></a>`;
}

export const Empty = ({ title, children }) => html`<div class="empty"><p class="empty-title">${title}</p><p>${children}</p></div>`;

export function Problem({ error, again }) {
  if (!error) return null;
  return html`<div class="problem" role="alert">
    <p>${inOneLine(error.message, 500)}</p>
    ${again && html`<button type="button" onClick=${again}>Try again</button>`}
  </div>`;
}

export const Loading = () => html`<p class="loading">Loading …</p>`;

/** What deltaloom does not know about what is shown: said, not left out. */
export function Unknown({ words }) {
  if (!words?.length) return null;
  return html`<section class="unknown" aria-labelledby="unknown-title">
    <h2 id="unknown-title">What deltaloom does not know</h2>
    <ul>${words.map((line) => html`<li>${inOneLine(line, 600)}</li>`)}</ul>
  </section>`;
}

/** A button that copies what `text()` returns, and says so. */
export function Copy({ text, children, id }) {
  const [said, say] = useState(null);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text());
      say("Copied");
    } catch {
      say("The browser does not allow it");
    }
    setTimeout(() => say(null), 2000);
  };
  return html`<button type="button" id=${id} onClick=${copy}>${said ?? children}</button><span class="unseen" role="status">${said}</span>`;
}

/** A choice of one value; the empty one means all. */
export function Choice({ label, value, options, onChoose, all = "all" }) {
  const listed = value && !options.some(([name]) => name === value) ? [[value, inOneLine(value, 40)], ...options] : options;
  return html`<label class="field"><span>${label}</span>
    <select value=${value ?? ""} onChange=${(event) => onChoose(event.target.value || null)}>
      ${all && html`<option value="" selected=${!value}>${all}</option>`}
      ${listed.map(([name, words]) => html`<option value=${name} selected=${name === value}>${inOneLine(words, 60)}</option>`)}
    </select></label>`;
}

export const Facts = ({ children }) => html`<dl class="facts">${children}</dl>`;
export const Fact = ({ name, children }) => html`<div><dt>${name}</dt><dd>${children}</dd></div>`;
