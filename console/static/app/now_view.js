// What models say now: counters, one chart, and the responses, whose words grow as they come.
import { html, unlessSame, useEffect, useMemo, useRef } from "./html.js";
import { announce } from "./announce.js";
import { Chart, Legend } from "./chart.js";
import * as figures from "./figures.js";
import { useKeys } from "./keys.js";
import { useLive } from "./live.js";
import { GrowingPart } from "./part.js";
import { Chip, Choice, Empty, Name, Problem, ResponseLink, StatusChip, Time } from "./pieces.js";
import { textsAsked, useSession } from "./session.js";
import { change, href } from "./url_state.js";
import { inOneLine } from "./visible.js";
import { KINDS, STATUSES, named, OUTCOMES } from "./words.js";

const FILTERS = ["model", "tenant", "provider", "kind", "status"];
const SHOWN_STATUSES = [
  ["refused", "refused"],
  ["blocked", "blocked"],
  ["alerted", "with an alert"],
  ["ended", "ended"],
  ...Object.entries(STATUSES).map(([name, [words]]) => [name, words]),
];
const SERIES = [
  { label: "ended", colour: "responses", fill: "area" },
  { label: "refused", colour: "refused", width: 2 },
  { label: "blocked", colour: "blocked", width: 2 },
];

const HALF_HOUR = 1_800_000;

const STATES = {
  __proto__: null,
  connecting: ["Connecting …", "quiet"],
  live: ["Live", "good"],
  behind: ["Behind", "warn"],
  lost: ["Connection lost", "bad"],
  resting: ["Resting", "quiet"],
};

/** Return how far an alert got, in words: "alert after 3 ms, Slack after 84 ms". */
export function alertWords(alert) {
  const went = (alert.deliveries ?? []).map(({ destination, after_ms, verdict }) => {
    const where = inOneLine(destination ?? "a destination", 30);
    return verdict === "delivered" ? `${where} after ${figures.duration(after_ms)}` : `${where} ${named(OUTCOMES, verdict)[0]}`;
  });
  return [`alert after ${figures.duration(alert.after_ms)}`, ...went].join(", ");
}

const failedSomewhere = (alert) => alert.deliveries?.some(({ verdict }) => !["delivered", "pending"].includes(verdict));

const Card = unlessSame(({ response }) => {
  const tone = response.refused ? "refused" : response.blocked ? "blocked" : response.status === "open" ? "open" : "over";
  return html`<li class=${`card card-${tone}`} data-row data-id=${response.id}>
    <header>
      <h3><${Name} of=${response.model} none="unknown model" most=${48} /></h3>
      ${response.refused && html`<${Chip} tone="refused">refused<//>`}
      ${response.blocked && html`<${Chip} tone="warn">blocked<//>`}
      <${StatusChip} status=${response.status} />
      <span class="card-time"><${Time} at=${response.began} /></span>
    </header>
    <p class="card-context">
      <${ResponseLink} id=${response.id} />
      ${response.provider && html`<span>by <${Name} of=${response.provider} most=${32} /></span>`}
      ${response.tenant && html`<span>for <${Name} of=${response.tenant} most=${32} /></span>`}
    </p>
    ${response.alert &&
    html`<p class=${`card-alert ${failedSomewhere(response.alert) ? "card-alert-failed" : ""}`}>
      ${alertWords(response.alert)}
      ${response.alert.category && html` <span class="category">${inOneLine(response.alert.category, 40)}</span>`}
    </p>`}
    ${(response.parts ?? []).map((part) => html`<${GrowingPart} part=${part} key=${`${part.kind} ${part.output_index} ${part.content_index}`} />`)}
    ${!response.parts?.length && html`<p class="withheld">${response.reason ? `Without a text: ${inOneLine(response.reason, 100)}` : "No word yet."}</p>`}
  </li>`;
});

/** A counter; with `to`, its figure is a link to what it counts. */
const Tile = ({ name, value, tone = "", title, to }) => {
  const figure = Number.isFinite(value) ? figures.count(value) : "–";
  return html`<div class=${`tile ${tone && value ? `tile-${tone}` : ""}`} title=${title}>
    <dt>${name}</dt><dd>${to && value ? html`<a href=${href(to)} aria-label=${`${figure} ${name}: show them`}>${figure}</a>` : figure}</dd></div>`;
};

function Counters({ counters, parameters }) {
  const { ended, refused, blocked, alerts, undelivered } = counters.minute ?? {};
  const { texts } = parameters;
  return html`<div class="tiles-around">
    <dl class="tiles" aria-label="Counters">
      <${Tile} name="under way" value=${counters.open} title="Responses that have begun and have not ended" />
      <${Tile} name="ended" value=${ended} />
      <${Tile} name="refused" value=${refused} tone="refused" to=${{ ...parameters, view: "now", status: "refused" }} />
      <${Tile} name="blocked" value=${blocked} tone="blocked" to=${{ ...parameters, view: "now", status: "blocked" }} />
      <${Tile} name="alerts" value=${alerts} to=${{ view: "alerts", texts }} />
      <${Tile} name="undelivered" value=${undelivered} tone="refused" title="Alerts that a destination did not confirm" to=${{ view: "alerts", outcome: "undelivered", texts }} />
    </dl>
    <p class="hint">Under way: at the moment. All others: in the last minute.</p>
  </div>`;
}

function Flow({ chart, at }) {
  const { rows, spikes, step_ms: step } = chart;
  const total = (column) => rows.reduce((sum, row) => sum + row[column], 0);
  const last = rows.at(-1)?.[0] ?? at;
  const title = `Responses each ${figures.duration(step)} since ${figures.shortTime(rows[0]?.[0])}: ${figures.count(total(1))} ended, ${figures.count(total(2))} refused, ${figures.count(total(3))} blocked.${spikes.length ? ` Marked: ${figures.counted(spikes.length, "spike")} of refusals.` : ""}`;
  return html`<section class="flow" aria-labelledby="flow-title">
    <header class="section-header">
      <h2 id="flow-title">Last half hour</h2>
      <${Legend} entries=${[["responses", "ended"], ["refused", "refused"], ["blocked", "blocked"], ["spike", "spike"]]} />
    </header>
    ${rows.length ? html`<${Chart} rows=${rows} series=${SERIES} spikes=${spikes} span=${[last - HALF_HOUR, last]} height=${132} title=${title} />` : html`<p class="loading plot-empty">No response has ended since this console began to watch.</p>`}
    ${spikes.length > 0 &&
    html`<p class="spike-words">${spikes.map((spike, n) => html`${n > 0 && "; "}<a href=${href({ view: "rates", by: spike.by, name: spike.name })}>${inOneLine(`${spike.by} ${spike.name}`, 80)}</a>: spike ${spike.until ? `from ${figures.shortTime(spike.since)} to ${figures.shortTime(spike.until)}` : `since ${figures.shortTime(spike.since)}`}`)}</p>`}
  </section>`;
}

/** Return the choices for a filter: the values that were seen since the page was opened. */
function useSeen(responses) {
  const seen = useRef({ model: new Set(), tenant: new Set(), provider: new Set() });
  return useMemo(() => {
    for (const response of responses) {
      for (const [name, values] of Object.entries(seen.current)) if (response[name] && values.size < 300) values.add(response[name]);
    }
    return Object.fromEntries(Object.entries(seen.current).map(([name, values]) => [name, [...values].sort().map((value) => [value, value])]));
  }, [responses]);
}

export function Now({ parameters }) {
  const me = useSession();
  const frozen = parameters.freeze === "1";
  const chosen = Object.fromEntries(FILTERS.filter((name) => parameters[name]).map((name) => [name, parameters[name]]));
  const { state, status, error, missed } = useLive({ ...chosen, ...textsAsked(me, parameters) }, frozen);
  const seen = useSeen(state.responses);
  const freeze = () => change({ freeze: frozen ? null : "1" });
  useKeys({ f: freeze });

  const known = useRef(null);
  useEffect(() => {
    const refused = state.responses.filter((response) => response.refused);
    const fresh = known.current === null ? [] : refused.filter(({ id }) => !known.current.has(id));
    known.current = state.at === null ? null : new Set(refused.map(({ id }) => id));
    if (fresh.length) announce(`${figures.counted(fresh.length, "new refusal")}, the newest by ${inOneLine(fresh[0].model ?? "an unknown model", 40)}`);
  }, [state.responses]);

  const [words, tone] = STATES[status];
  const filtered = Object.keys(chosen).length > 0;
  const more = (state.counters.matching ?? 0) - state.responses.length;
  return html`
    <div class="view-header">
      <h1>Now</h1>
      <p class="state" role="status"><span class=${`dot dot-${frozen ? "warn" : tone}`} aria-hidden="true" />${frozen ? "Frozen" : words}${status === "behind" && !frozen ? ": too much happens for this page; it shows the newest" : ""}${status === "lost" ? "; trying again" : ""}</p>
      <button type="button" class=${frozen ? "primary" : ""} aria-pressed=${String(frozen)} aria-keyshortcuts="f" onClick=${freeze}>${frozen ? "Go on" : "Freeze"}</button>
    </div>
    <${Problem} error=${error} />
    <${Counters} counters=${state.counters} parameters=${parameters} />
    <${Flow} chart=${state.chart} at=${state.at} />
    <section aria-labelledby="responses-title">
      <header class="section-header">
        <h2 id="responses-title">Responses</h2>
        <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
          ${["model", "tenant", "provider"].map((name) => html`<${Choice} label=${name} value=${parameters[name]} options=${seen[name]} onChoose=${(value) => change({ [name]: value })} />`)}
          <${Choice} label="kind" value=${parameters.kind} options=${Object.entries(KINDS)} onChoose=${(value) => change({ kind: value })} />
          <${Choice} label="status" value=${parameters.status} options=${SHOWN_STATUSES} onChoose=${(value) => change({ status: value })} />
          ${filtered && html`<button type="button" onClick=${() => change(Object.fromEntries(FILTERS.map((name) => [name, null])))}>Clear</button>`}
        </form>
      </header>
      ${frozen && html`<p class="frozen-note">Frozen at <${Time} at=${state.at} />${missed > 0 && `: ${figures.counted(missed, "change")} since then`}.</p>`}
      ${state.responses.length > 0 && html`<ol class="cards">${state.responses.map((response) => html`<${Card} response=${response} key=${response.id} />`)}</ol>`}
      ${state.responses.length === 0 && status === "connecting" && html`<p class="loading">Connecting …</p>`}
      ${state.responses.length === 0 && status !== "connecting" &&
      (filtered
        ? html`<${Empty} title="No response fits these filters.">Others may be under way: clear the filters to see them.<//>`
        : html`<${Empty} title="No response is under way.">Responses appear here with their first event. If producers are sending, see <a href=${href({ view: "health" })}>Health</a>.<//>`)}
      ${more > 0 && html`<p class="hint">${figures.count(more)} more that fit are not shown: choose a filter to see others.</p>`}
    </section>`;
}
