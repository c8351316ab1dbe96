// One alert, with where it went; the page of a response and that of alerts both show it.
import { html, useState } from "./html.js";
import { post } from "./api.js";
import { Dialog } from "./dialog.js";
import * as figures from "./figures.js";
import { Chip, Name, OutcomeChip, OutsideLink, ResponseLink, SeverityChip, Time } from "./pieces.js";
import { useSession } from "./session.js";
import { inOneLine, tail, visible } from "./visible.js";
import { ALERTS, named } from "./words.js";

function Resend({ alert, delivery, onDone }) {
  const [open, setOpen] = useState(false);
  const [said, say] = useState(null);
  const send = async () => {
    say({ words: "Sending …" });
    try {
      const { outcome, answer } = await post(`alerts/${encodeURIComponent(alert.id)}/resend`, { destination: delivery.destination });
      say({ words: `${outcome}: ${answer}`, done: true });
      onDone?.();
    } catch (error) {
      say({ words: error.message, bad: true });
    }
  };
  return html`<button type="button" onClick=${() => setOpen(true)}>Send again …</button>
    <${Dialog} title="Send this alert again?" open=${open} onClose=${() => setOpen(false)}>
      <p>It goes to <strong><${Name} of=${delivery.destination} /></strong> once, with its former id. The file of alerts decides how much of the text is sent.</p>
      ${said && html`<p role="status" class=${said.bad ? "problem" : "said"}>${inOneLine(said.words, 400)}</p>`}
      <div class="dialog-end">${!said?.done && html`<button type="button" class="primary" onClick=${send}>Send it</button>`}</div>
    <//>`;
}

function Seen({ alert }) {
  const { actions } = useSession();
  const [seen, setSeen] = useState(alert.seen);
  const [error, setError] = useState(null);
  if (seen) return html`<span class="seen">seen by <${Name} of=${seen.by} none="somebody" most=${32} />, <${Time} at=${seen.at} /></span>`;
  if (!actions) return null;
  const mark = () => post(`alerts/${encodeURIComponent(alert.id)}/seen`).then(setSeen, setError);
  return html`<button type="button" onClick=${mark}>Seen by me</button>${error && html`<span class="problem" role="alert">${error.message}</span>`}`;
}

function Deliveries({ alert, onDone }) {
  const { actions: allowed } = useSession();
  const actions = allowed && alert.deliveries?.some(({ undelivered_id: id }) => id);
  if (!alert.deliveries?.length) {
    return html`<p class="withheld">No delivery is recorded: no route leads it anywhere, a mute applies, or no relay has read it yet.</p>`;
  }
  return html`<div class="scroll" tabindex="0" role="group" aria-label="Deliveries"><table class="deliveries">
    <thead><tr><th scope="col">destination</th><th scope="col">outcome</th><th scope="col" class="number">after</th><th scope="col" class="number">attempts</th><th scope="col">answer</th>${actions && html`<th scope="col">action</th>`}</tr></thead>
    <tbody>${alert.deliveries.map((delivery) => html`<tr>
      <th scope="row"><${Name} of=${delivery.destination} most=${40} /></th>
      <td><${OutcomeChip} outcome=${delivery.outcome} /></td>
      <td class="number">${figures.duration(delivery.after_ms)}</td>
      <td class="number">${figures.count(delivery.attempts)}</td>
      <td class="answer"><bdi>${delivery.answer ? inOneLine(delivery.answer, 300) : "none"}</bdi>${delivery.digest_id && html` <${Chip}>in a digest<//>`}</td>
      ${actions && html`<td>${delivery.undelivered_id && html`<${Resend} alert=${alert} delivery=${delivery} onDone=${onDone} />`}</td>`}
    </tr>`)}</tbody>
  </table></div>`;
}

function Rate({ rate }) {
  if (!rate) return null;
  const of = (refused, responses) => `${figures.share(responses ? refused / responses : NaN)} (${figures.count(refused)} of ${figures.count(responses)})`;
  return html`<p class="rate">${rate.by} <${Name} of=${rate.name} />: ${of(rate.refused, rate.responses)} refused, before that ${of(rate.baseline_refused, rate.baseline_responses)}.</p>`;
}

/** Return the reason of an alert in one line, as far as it is known. */
const why = (alert) => [alert.reason_class, alert.reason].filter(Boolean).map((word) => inOneLine(word, 80)).join(": ");

export function AlertCard({ alert, within = false, onDone }) {
  const [title, sentence] = ALERTS[alert.type] ?? [alert.type ?? "Alert"];
  const undelivered = alert.deliveries?.some(({ undelivered_id: id }) => id);
  return html`<article class=${`alert ${undelivered ? "alert-undelivered" : ""}`} data-row>
    <header>
      <h3 title=${sentence}>${inOneLine(title, 60)}</h3>
      <${SeverityChip} severity=${alert.severity} />
      ${alert.category && html`<${Chip}>${inOneLine(alert.category, 40)}<//>`}
      ${undelivered && html`<${Chip} tone="bad">undelivered<//>`}
      <span class="card-time"><${Time} at=${alert.raised_at} /></span>
    </header>
    ${!within &&
    html`<p class="card-context">
      ${alert.response_id ? html`<${ResponseLink} id=${alert.response_id} />` : null}
      ${alert.model && html`<span>by <${Name} of=${alert.model} most=${40} /></span>`}
      ${alert.tenant && html`<span>for <${Name} of=${alert.tenant} most=${32} /></span>`}
    </p>`}
    <${Rate} rate=${alert.rate} />
    ${alert.fallback && html`<p class="rate"><${Name} of=${alert.fallback.to_model} /> answered in place of <${Name} of=${alert.fallback.from_model} />.</p>`}
    ${alert.provider_explanation && html`<p class="rate">The provider's words: <bdi>${inOneLine(alert.provider_explanation, 400)}</bdi></p>`}
    ${alert.hidden ? html`<p class="withheld">Its text is hidden.</p>` : alert.text && html`<blockquote dir="auto"><bdi>${visible(tail(alert.text, 400))}</bdi></blockquote>`}
    <p class="card-context">
      <span>${alert.rule ? html`rule <${Name} of=${alert.rule} most=${40} />` : "no rule fits"}</span>
      <span>${alert.route ? html`route <${Name} of=${alert.route} most=${40} />` : "route not known"}</span>
      ${why(alert) && html`<span>reason ${why(alert)}</span>`}
      ${alert.reference && html`<span><${OutsideLink} to=${alert.reference_url}><${Name} of=${alert.reference} most=${60} /><//></span>`}
    </p>
    <${Deliveries} alert=${alert} onDone=${onDone} />
    <div class="alert-end"><${Seen} alert=${alert} /></div>
  </article>`;
}

export const alertTypes = () => Object.keys(ALERTS).map((type) => [type, named(ALERTS, type)[0]]);
