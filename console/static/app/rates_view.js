// Refused and blocked shares over time, with their intervals: which model got worse?
import { html, useMemo } from "./html.js";
import { useGet } from "./api.js";
import { Chart, Legend } from "./chart.js";
import * as figures from "./figures.js";
import { Chip, Choice, Empty, Loading, Name, Problem, Unknown } from "./pieces.js";
import { change, href } from "./url_state.js";

const HOURS = [["1", "last hour"], ["6", "last 6 hours"], ["24", "last day"], ["168", "last week"]];
const BY = [["model", "model"], ["provider", "provider"], ["tenant", "tenant"]];
const SERIES = [
  { label: "refused, at most", width: 0 },
  { label: "refused, at least", width: 0 },
  { label: "refused", colour: "refused", width: 2 },
  { label: "blocked", colour: "blocked", width: 2 },
];
const BANDS = [[1, 2, "band"]];
const DRAWN = 8;
/** Rows with fewer responses have intervals so wide that they would hide all others. */
const FEW = 5;

const part = (number, of) => (of ? number / of : NaN);
const interval = (low, high) => (Number.isFinite(low) && Number.isFinite(high) ? `${figures.share(low)} to ${figures.share(high)}` : figures.UNKNOWN);
/** Return how times of rows are written: with their date if they span most of a day. */
const rowTime = (span) => (span > 72_000_000 ? figures.longTime : figures.shortTime);

const HOUR = 3_600_000;

/** Return Wilson's 95 % interval of a share; of no responses, nothing is known. */
function wilson(number, of) {
  if (!of) return [NaN, NaN];
  const z = 1.959964;
  const ratio = number / of;
  const middle = (ratio + (z * z) / (2 * of)) / (1 + (z * z) / of);
  const half = (z / (1 + (z * z) / of)) * Math.sqrt((ratio * (1 - ratio)) / of + (z * z) / (4 * of * of));
  return [Math.max(0, middle - half), Math.min(1, middle + half)];
}

const sums = (rows) => [1, 2, 3].map((column) => rows.reduce((sum, row) => sum + row[column], 0));

/** Return a group with the totals since a time, compared with what was before it in the same answer. */
function divided(group, since, step) {
  const later = sums(group.rows.filter(([t]) => t + step / 2 >= since));
  const [n0, r0] = sums(group.rows.filter(([t]) => t + step / 2 < since));
  const [n1, r1] = later;
  const pooled = (r0 + r1) / (n0 + n1);
  const deviation = Math.sqrt(pooled * (1 - pooled) * (1 / n0 + 1 / n1));
  const change = n0 && n1 ? { before: r0 / n0, now: r1 / n1, score: deviation ? (r1 / n1 - r0 / n0) / deviation : 0 } : null;
  return { ...group, total: [...later, ...wilson(r1, n1), ...wilson(later[2], n1)], change };
}

const worst = (a, b) => rank(b) - rank(a) || b.total[0] - a.total[0];
const rank = (group) => (group.spikes?.some(({ until }) => !until) ? 1e6 : 0) + (group.change?.score ?? 0);

function Change({ change: changed }) {
  if (!changed) return html`<span class="none">too few</span>`;
  const worse = changed.score >= 2;
  const better = changed.score <= -2;
  return html`<span class=${worse ? "worse" : better ? "better" : ""}>${figures.share(changed.before)} → ${figures.share(changed.now)}${worse ? ", worse" : better ? ", better" : ""}</span>`;
}

function Group({ group, step, since, at }) {
  const { by, name, rows, total } = group;
  const [responses, refused, blocked, low, high] = total;
  const lines = useMemo(
    () => rows.map(([t, n, r, b, from, to]) => (n < FEW ? [t, null, null, null, null] : [t, to, from, part(r, n), part(b, n)])),
    [rows],
  );
  const format = rowTime(at - since);
  const title = `Share of responses of ${by} ${name} that were refused and blocked: ${figures.share(part(refused, responses))} and ${figures.share(part(blocked, responses))} of ${figures.count(responses)}. The table has each value.`;
  const spikes = group.spikes ?? [];
  const id = `group-${by}-${encodeURIComponent(name)}`;
  return html`<section class="group" aria-labelledby=${id}>
    <header class="section-header">
      <h3 id=${id}><${Name} of=${name} most=${80} /></h3>
      ${spikes.some(({ until }) => !until) && html`<${Chip} tone="refused">spike since ${figures.shortTime(spikes.find(({ until }) => !until).since)}<//>`}
      <p class="hint">${figures.share(part(refused, responses))} refused (${interval(low, high)}), ${figures.share(part(blocked, responses))} blocked, of ${figures.counted(responses, "response")}</p>
    </header>
    <div class="beside">
      <${Chart} rows=${lines} series=${SERIES} bands=${BANDS} spikes=${spikes} span=${[since, at]} height=${190} title=${title} format=${figures.share} most=${0.02} />
      <div class="scroll" tabindex="0" role="group" aria-label=${`Table of ${name}`}>
        <table>
          <thead><tr><th scope="col">from</th><th scope="col" class="number">responses</th><th scope="col" class="number">refused</th><th scope="col" class="number">interval</th><th scope="col" class="number">blocked</th></tr></thead>
          <tbody>${rows.toReversed().map(([t, n, r, b, from, to]) => html`<tr class=${spikes.some((spike) => t + step > spike.since && t < (spike.until ?? at)) ? "in-spike" : ""} key=${t}>
            <th scope="row">${format(t)}</th><td class="number">${figures.count(n)}</td><td class="number">${n ? figures.share(r / n) : "–"}</td><td class="number">${n ? interval(from, to) : "–"}</td><td class="number">${n ? figures.share(b / n) : "–"}</td></tr>`)}</tbody>
        </table>
      </div>
    </div>
    <p class="group-end"><a href=${href({ view: "now", [by]: name, status: "refused" })}>Refusals now</a><a href=${href({ view: "alerts", [by]: name })}>Alerts</a></p>
  </section>`;
}

export function Rates({ parameters }) {
  const by = parameters.by ?? "model";
  const since = parameters.since ?? "";
  const from = since ? timeOfDay(since) : null;
  const hours = from ? hoursAround(from) : (parameters.hours ?? "24");
  const { data, error, loading, again } = useGet("rates", { hours, by, name: parameters.name }, 30);
  const groups = useMemo(() => (data?.groups ?? []).filter((group) => group.by === by).map((group) => (from ? divided(group, from, data.step_ms) : group)).sort(worst), [data, by, from]);
  const drawn = groups.slice(0, DRAWN);
  return html`
    <div class="view-header">
      <h1>Rates</h1>
      ${data && html`<p class="state">${figures.longTime(from ?? data.since)} to ${figures.shortTime(data.at)}</p>`}
      <button type="button" onClick=${again} disabled=${loading}>Reload</button>
    </div>
    <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
      <${Choice} label="by" value=${by} options=${BY} all=${null} onChoose=${(value) => change({ by: value, name: null })} />
      <${Choice} label="time" value=${since ? "since" : hours} options=${since ? [["since", `since ${since}`], ...HOURS] : HOURS} all=${null} onChoose=${(value) => change({ hours: value, since: null })} />
      <label class="field"><span>or since</span><input type="time" value=${since} onChange=${(event) => change({ since: event.target.value || null, hours: null })} /></label>
      ${parameters.name && html`<button type="button" onClick=${() => change({ name: null })}>Show all</button>`}
    </form>
    <${Problem} error=${error} again=${again} />
    ${!data && loading && html`<${Loading} />`}
    ${groups.length > 1 &&
    html`<section aria-labelledby="worst-title">
      <h2 id="worst-title">The worse first</h2>
      <div class="scroll" tabindex="0" role="group" aria-label="All of them"><table class="overview">
        <thead><tr><th scope="col">${by}</th><th scope="col">change</th><th scope="col" class="number">responses</th><th scope="col" class="number">refused</th><th scope="col" class="number">interval</th><th scope="col" class="number">blocked</th></tr></thead>
        <tbody>${groups.map((group) => {
          const [responses, refused, blocked, low, high] = group.total;
          const spike = group.spikes?.find(({ until }) => !until);
          return html`<tr key=${group.name}><th scope="row"><a data-row href=${href({ ...parameters, view: "rates", by, name: group.name })}><${Name} of=${group.name} most=${60} /></a>${spike && html` <${Chip} tone="refused">spike<//>`}</th>
            <td><${Change} change=${group.change} /></td><td class="number">${figures.count(responses)}</td><td class="number">${figures.share(part(refused, responses))}</td><td class="number">${interval(low, high)}</td><td class="number">${figures.share(part(blocked, responses))}</td></tr>`;
        })}</tbody></table></div>
      <p class="hint">Intervals are Wilson's, 95 %: the true share is inside with that confidence. The change compares ${from ? `the time since ${since} with what is known before it` : "the second half of the time with the first"}; “worse” and “better” mean that it is more than chance (a score of 2 or more).</p>
    </section>`}
    ${drawn.length > 0 && html`<h2 class="unseen">Over time</h2><${Legend} entries=${[["refused", "refused"], ["band", "its interval"], ["blocked", "blocked"], ["spike", "spike"]]} />`}
    ${drawn.map((group) => html`<${Group} group=${group} step=${data.step_ms} since=${data.since} at=${data.at} key=${`${group.by} ${group.name}`} />`)}
    ${groups.length > drawn.length && html`<p class="hint">The first ${DRAWN} are drawn. Choose a name in the table to see another one.</p>`}
    ${data && !groups.length && html`<${Empty} title="Nothing was counted in this time.">A response counts when it is over, if its producer gives a response id and its ${by} is known.<//>`}
    <${Unknown} words=${data?.unknown} />`;
}

/** Return the latest time at which a clock had this time of day. */
function timeOfDay(clock) {
  const [hour, minute] = clock.split(":").map(Number);
  const then = new Date();
  then.setHours(hour, minute, 0, 0);
  if (then > Date.now()) then.setDate(then.getDate() - 1);
  return then.getTime();
}

/** Return the hours to ask for: those since a time, and as many before it to compare with. */
const hoursAround = (from) => (HOURS.find(([hours]) => hours * HOUR >= 2 * (Date.now() - from)) ?? HOURS.at(-1))[0];
