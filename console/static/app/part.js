// The text of a part: on the page of what happens now, its newest words; on the page of a response, all of it.
import { html, useState } from "./html.js";
import * as figures from "./figures.js";
import { Copy, IntegrityChip, StatusChip } from "./pieces.js";
import { head, tail, visible } from "./visible.js";
import { INTEGRITIES, SOURCES, kindName, kindTone } from "./words.js";

const NEWEST = 560;
const FIRST = 20_000;
const MORE = 200_000;

/** The newest words of a part, while they come. */
export function GrowingPart({ part }) {
  const text = part.text ?? "";
  const cut = part.cut || text.length > NEWEST;
  return html`<div class=${`growing tone-${kindTone(part.kind)}`}>
    <p class="kind">${kindName(part.kind)}${part.integrity && html` <${IntegrityChip} integrity=${part.integrity} />`}</p>
    ${part.hidden
      ? html`<p class="withheld">${figures.counted(part.length, "character")}, hidden</p>`
      : html`<p class="words" dir="auto"><bdi>${cut && "… "}${visible(tail(text, NEWEST))}</bdi></p>`}
  </div>`;
}

/** Return what is known of whether a text is complete, in sentences. */
function explained(part) {
  if (part.explained) return [].concat(part.explained).join(" ");
  const [, , sentence = ""] = INTEGRITIES[part.integrity] ?? [];
  if (!part.integrity) return (part.status ?? "open") === "open" ? "It is still being said." : "Whether the text is complete is not known.";
  return [sentence, SOURCES[part.integrity_source]].filter(Boolean).join(" ");
}

/** A part with all that is known about it. */
export function WholePart({ part, number }) {
  const [most, setMost] = useState(FIRST);
  const text = part.text ?? "";
  const shown = head(text, most);
  const title = `part-${number}`;
  return html`<article class=${`part tone-${kindTone(part.kind)}`} aria-labelledby=${title}>
    <header>
      <h3 id=${title} class="kind">${kindName(part.kind)}</h3>
      <${StatusChip} status=${part.status ?? "open"} />
      ${part.integrity && html`<${IntegrityChip} integrity=${part.integrity} />`}
      <span class="place">output ${part.output_index ?? "?"}, content ${part.content_index ?? "?"}</span>
    </header>
    <p class="explained">${explained(part)}</p>
    ${part.hidden
      ? html`<p class="withheld">${figures.counted(part.length, "character")}, hidden until you ask for the texts</p>`
      : text
        ? html`<div class="whole-text" dir="auto" tabindex="0" role="group" aria-label=${`Text of this part: ${kindName(part.kind)}`}>${visible(shown)}</div>`
        : html`<p class="withheld">No text.</p>`}
    ${shown.length < text.length &&
    html`<p class="more">${figures.count(shown.length)} of ${figures.count(part.length ?? text.length)} characters
      <button type="button" onClick=${() => setMost(most + MORE)}>Show more</button></p>`}
    ${part.cut && html`<p class="more">The server sent only a piece of this text, which has ${figures.counted(part.length, "character")}.</p>`}
    <footer>
      <span>${figures.counted(part.length ?? text.length, "character")}</span>
      <span>${figures.counted(part.delta_count, "delta")}</span>
      <span>${figures.counted(part.duplicate_count, "duplicate")} dropped</span>
      <span>late: ${figures.count(part.late_count)}</span>
      ${text && html`<${Copy} text=${() => text}>Copy text<//>`}
    </footer>
  </article>`;
}
