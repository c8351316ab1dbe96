// A dead letter: an entry that could not be processed, with its line.
import { html } from "./html.js";
import * as figures from "./figures.js";
import { Chip, Name, ResponseLink, Time } from "./pieces.js";
import { head, inOneLine, visible } from "./visible.js";

const REASONS = {
  __proto__: null,
  malformed_json: "not JSON",
  invalid_event: "not a valid event",
  oversized: "too large",
  handler_error: "a handler failed",
  max_deliveries: "delivered too often",
};

export function LetterCard({ letter }) {
  return html`<details class="letter">
    <summary data-row><${Chip} tone="bad">${inOneLine(REASONS[letter.reason] ?? letter.reason ?? "unknown reason", 40)}<//>
      <span class="letter-error">${inOneLine(letter.error ?? "", 300)}</span>
      <span class="card-time"><${Time} at=${letter.failed_at} /></span></summary>
    <p class="card-context">
      ${letter.response_id && html`<${ResponseLink} id=${letter.response_id} />`}
      <span>entry <${Name} of=${letter.entry_id} /> of <${Name} of=${letter.stream} /></span>
      <span>${figures.counted(letter.deliveries, "delivery", "deliveries")}</span>
    </p>
    ${letter.line === null || letter.line === undefined
      ? html`<p class="withheld">Its line is hidden, since it may have words of a text.</p>`
      : html`<pre tabindex="0" role="group" aria-label="Line of the dead letter">${visible(head(letter.line, 4000))}</pre>
        ${(letter.cut || letter.line.length > 4000) && html`<p class="hint">Only its beginning. <code>deltaloom dead-letters</code> shows all.</p>`}`}
  </details>`;
}
