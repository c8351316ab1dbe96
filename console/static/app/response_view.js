// One response: all that is known of it, and what is not.
import { html, useMemo } from "./html.js";
import { useGet } from "./api.js";
import { AlertCard } from "./alert_pieces.js";
import { Chart } from "./chart.js";
import * as figures from "./figures.js";
import { LetterCard } from "./letter.js";
import { WholePart } from "./part.js";
import { Chip, Copy, Empty, Fact, Facts, Loading, Name, OutsideLink, Problem, StatusChip, Time, Unknown } from "./pieces.js";
import { textsAsked, useSession } from "./session.js";
import { change, href } from "./url_state.js";
import { inOneLine } from "./visible.js";

const SERIES = [{ label: "characters", colour: "responses", fill: "area", width: 2 }];

/** Return the timeline as [milliseconds since the first delta, characters so far]. */
function grown(timeline) {
  let sum = 0;
  return timeline.map(([at, characters]) => [at - timeline[0][0], (sum += characters)]);
}

/** Return the longest time without a delta, as [milliseconds, when it began]; null without two deltas. */
function longestPause(timeline) {
  return timeline.slice(1).reduce((longest, [at], n) => {
    const pause = at - timeline[n][0];
    return !longest || pause > longest[0] ? [pause, timeline[n][0]] : longest;
  }, null);
}

function Timeline({ timeline, cut }) {
  const rows = useMemo(() => grown(timeline), [timeline]);
  const pause = longestPause(timeline);
  const last = rows.at(-1);
  const words = `${figures.counted(timeline.length, "delta")}, ${figures.counted(last[1], "character")} in ${figures.duration(last[0])}${pause ? `; the longest pause ${figures.duration(pause[0])}` : ""}.`;
  return html`<section aria-labelledby="timeline-title">
    <h2 id="timeline-title">Deltas</h2>
    <p class="hint">${words}${cut ? " The first ones only: there are more than the page draws." : ""}</p>
    <${Chart} rows=${rows} series=${SERIES} height=${120} elapsed title=${`Characters so far, by the time of each delta. ${words}`} format=${(value) => figures.count(value)} />
  </section>`;
}

function Asking() {
  const open = (event) => {
    event.preventDefault();
    change({ id: new FormData(event.target).get("id").trim() });
  };
  return html`<h1>Response</h1>
    <form class="filters" onSubmit=${open}>
      <label class="field field-wide"><span>id of the response</span><input name="id" required maxlength="1024" autocomplete="off" spellcheck="false" /></label>
      <button type="submit" class="primary">Open</button>
    </form>`;
}

export function Response({ parameters }) {
  return parameters.id ? html`<${Known} parameters=${parameters} />` : html`<${Asking} />`;
}

function Known({ parameters }) {
  const me = useSession();
  const { data, error, loading, again } = useGet(`responses/${encodeURIComponent(parameters.id)}`, textsAsked(me, parameters));
  const header = html`<div class="view-header">
    <h1 class="response-title"><span class="over-title">Response</span><${Name} of=${parameters.id} most=${200} /></h1>
    <button type="button" onClick=${again} disabled=${loading}>Reload</button>
    ${data && html`<${Copy} text=${() => JSON.stringify(data, null, 2)}>Copy as JSON<//>`}
  </div>`;
  if (!data) {
    return html`${header}${error?.status === 404
      ? html`<${Empty} title="deltaloom knows nothing of this response.">Outputs in Redis are kept for a limited time. ${me.archive ? html`Older ones may be in the <a href=${href({ view: "search", q: parameters.id })}>archive</a>.` : "There is no archive to look into."}<//>`
      : html`<${Problem} error=${error} again=${again} />`}${loading && !error && html`<${Loading} />`}`;
  }
  const lasted = Number.isFinite(data.ended) && Number.isFinite(data.began) ? figures.duration(data.ended - data.began) : null;
  return html`${header}
    <${Problem} error=${error} again=${again} />
    <div class="verdict">
      ${data.refused && html`<${Chip} tone="refused">refused<//>`}
      ${data.blocked && html`<${Chip} tone="warn">blocked<//>`}
      <${StatusChip} status=${data.status} />
      <p>began <${Time} at=${data.began} />${data.ended ? html`, ended <${Time} at=${data.ended} />` : ", has not ended"}${lasted && ` (${lasted})`}</p>
    </div>
    <${Facts}>
      <${Fact} name="model"><${Name} of=${data.model} /><//>
      <${Fact} name="provider"><${Name} of=${data.provider} />${data.upstream_provider && html`, answered by <${Name} of=${data.upstream_provider} />`}<//>
      <${Fact} name="tenant"><${Name} of=${data.tenant} /><//>
      <${Fact} name="user"><${Name} of=${data.safety_identifier} /><//>
      <${Fact} name="why it ended"><${Name} of=${data.reason} none=${data.ended ? "no reason given" : "it has not ended"} most=${120} />${data.reason_class && html` (${inOneLine(data.reason_class, 40)})`}<//>
      <${Fact} name="provider's category"><${Name} of=${data.provider_category} none="none given" />${data.provider_explanation && html`<br /><bdi>${inOneLine(data.provider_explanation, 600)}</bdi>`}<//>
      <${Fact} name="reference"><${OutsideLink} to=${data.reference_url ?? data.reference}><${Name} of=${data.reference} none="none given" most=${120} /><//><//>
      <${Fact} name="traceparent"><${OutsideLink} to=${data.trace_url}><${Name} of=${data.traceparent} none="none given" most=${60} /><//><//>
      <${Fact} name="provider's id"><${Name} of=${data.upstream_response_id} none="none given" most=${120} /><//>
      <${Fact} name="wire format"><${Name} of=${data.dialect} none="the Responses API, or not known" /><//>
      <${Fact} name="late events">${figures.count(data.late)}<//>
      <${Fact} name="duplicates dropped">${figures.count(data.duplicates)}<//>
    <//>
    <section aria-labelledby="parts-title">
      <h2 id="parts-title">Texts</h2>
      ${data.parts?.length ? data.parts.map((part, number) => html`<${WholePart} part=${part} number=${number} key=${part.id ?? number} />`) : html`<p class="withheld">This response has no text that deltaloom rebuilds.</p>`}
    </section>
    ${data.timeline?.length > 1 && html`<${Timeline} timeline=${data.timeline} cut=${data.timeline_cut} />`}
    <section aria-labelledby="alerts-title">
      <h2 id="alerts-title">Alerts</h2>
      ${data.alerts?.length ? html`<div class="alerts">${data.alerts.map((alert) => html`<${AlertCard} alert=${alert} within onDone=${again} key=${alert.id} />`)}</div>` : html`<p class="withheld">None was raised.</p>`}
    </section>
    ${data.dead_letters?.length > 0 &&
    html`<section aria-labelledby="letters-title">
      <h2 id="letters-title">Dead letters</h2>
      <p class="hint">Events of this response that could not be processed. A text may lack their words.</p>
      ${data.dead_letters.map((letter) => html`<${LetterCard} letter=${letter} key=${letter.id} />`)}
    </section>`}
    <${Unknown} words=${data.unknown} />`;
}
