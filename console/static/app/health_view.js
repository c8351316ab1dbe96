// Is everything running? Workers, partitions, dead letters and destinations.
import { html } from "./html.js";
import { useGet } from "./api.js";
import * as figures from "./figures.js";
import { LetterCard } from "./letter.js";
import { Chip, Loading, Name, OutcomeChip, Problem, Time, Unknown } from "./pieces.js";
import { textsAsked, useSession } from "./session.js";
import { href } from "./url_state.js";
import { inOneLine } from "./visible.js";

const TONES = { __proto__: null, ok: "good", warning: "warn", error: "bad" };
const STATE_TONES = { __proto__: null, reads: "good", silent: "bad", enabled: "good", disabled: "bad", unused: "quiet" };

const Table = ({ id, title, heads, rows, none }) => html`<section aria-labelledby=${id}>
  <h2 id=${id}>${title}</h2>
  ${rows.length
    ? html`<div class="scroll" tabindex="0" role="group" aria-label=${title}><table>
        <thead><tr>${heads.map(([words, number]) => html`<th scope="col" class=${number ? "number" : ""}>${words}</th>`)}</tr></thead>
        <tbody>${rows.map((cells) => html`<tr>${cells.map((cell, n) => (n ? html`<td class=${heads[n][1] ? "number" : ""}>${cell}</td>` : html`<th scope="row">${cell}</th>`))}</tr>`)}</tbody></table></div>`
    : html`<p class="withheld">${none}</p>`}
</section>`;

const state = (word) => html`<${Chip} tone=${STATE_TONES[word] ?? "quiet"}>${inOneLine(word ?? "not known", 40)}<//>`;
const warned = (value) => (value > 0 ? html`<strong class="worse">${figures.count(value)}</strong>` : figures.count(value));
/** Return the age of the oldest entry that waits; older than a minute is a warning. */
const age = (ms) => (ms === null || ms === undefined ? "none waits" : html`<span class=${ms > 60_000 ? "worse" : ""}>${figures.duration(ms)}</span>`);

export function Health({ parameters }) {
  const me = useSession();
  const { data, error, loading, again } = useGet("health", textsAsked(me, parameters), 5);
  const findings = data?.findings ?? [];
  const worst = ["error", "warning"].find((level) => findings.some((finding) => finding.level === level)) ?? "ok";
  return html`
    <div class="view-header">
      <h1>Health</h1>
      ${data && html`<p class="state"><span class=${`dot dot-${TONES[worst]}`} aria-hidden="true" />${{ ok: "Nothing needs attention", warning: "Something needs a look", error: "Something is wrong" }[worst]}, <${Time} at=${data.at} /></p>`}
      <button type="button" onClick=${again} disabled=${loading}>Reload</button>
    </div>
    <${Problem} error=${error} again=${again} />
    ${!data && loading && html`<${Loading} />`}
    ${data &&
    html`
      ${findings.length > 0 && html`<ul class="findings">${findings.map(({ level, text }) => html`<li class=${`finding finding-${TONES[level] ?? "quiet"}`}><${Chip} tone=${TONES[level] ?? "quiet"}>${inOneLine(level, 20)}<//> <span>${inOneLine(text, 500)}</span></li>`)}</ul>`}
      <${Table} id="workers" title="Workers" heads=${[["worker"], ["state"], ["partitions", true], ["pending", true], ["last seen"]]} none="No worker is known: nothing reads the stream. Start one with: deltaloom worker."
        rows=${(data.workers ?? []).map((worker) => [html`<${Name} of=${worker.id} most=${60} />`, state(worker.state), Array.isArray(worker.partitions) ? figures.count(worker.partitions.length || 1) : figures.UNKNOWN, figures.count(worker.pending), figures.ago(worker.seen, data.at)])} />
      <${Table} id="partitions" title="Partitions" heads=${[["stream"], ["entries", true], ["unread", true], ["pending", true], ["oldest waits", true], ["open responses", true], ["dead letters", true], ["undelivered", true]]} none="No stream exists yet: no event was published."
        rows=${(data.partitions ?? []).map((row) => [html`<${Name} of=${row.name} most=${60} />${row.error && html`<br /><span class="worse">${inOneLine(row.error, 200)}</span>`}`, figures.count(row.length), figures.count(row.waiting), figures.count(row.pending), row.error ? figures.UNKNOWN : age(row.oldest_ms), figures.count(row.open), warned(row.dead_letters), warned(row.undelivered)])} />
      <${Table} id="destinations" title="Destinations" heads=${[["destination"], ["type"], ["state"], ["pending", true], ["oldest waits", true], ["undelivered", true], ["last outcome"]]} none="No destination is known: no relay has sent an alert."
        rows=${(data.destinations ?? []).map((row) => [html`<a href=${href({ view: "alerts", destination: row.name })}><${Name} of=${row.name} most=${40} /></a>`, html`<${Name} of=${row.type} />`, html`${state(row.state)}${row.disabled_answer && html` <bdi class="answer">${inOneLine(row.disabled_answer, 200)}</bdi>`}`, figures.count(row.pending), age(row.oldest_ms), warned(row.undelivered), row.last ? html`<${OutcomeChip} outcome=${row.last.outcome} /> <${Time} at=${row.last.at} /> <bdi class="answer">${inOneLine(row.last.answer ?? "", 120)}</bdi>` : "nothing sent yet"])} />
      <section aria-labelledby="letters">
        <h2 id="letters">Dead letters ${data.dead_letters?.count > 0 && html`<${Chip} tone="bad">${figures.count(data.dead_letters.count)}<//>`}</h2>
        ${(data.dead_letters?.newest ?? []).map((letter) => html`<${LetterCard} letter=${letter} key=${letter.id} />`)}
        ${!data.dead_letters?.newest?.length && html`<p class="withheld">None: every event could be processed.</p>`}
      </section>
      <${Unknown} words=${data.unknown} />`}`;
}
