// All alerts, the newest first, with how each ended at its destinations.
import { html, useEffect, useState } from "./html.js";
import { get, useGet } from "./api.js";
import { AlertCard, alertTypes } from "./alert_pieces.js";
import * as figures from "./figures.js";
import { Choice, Empty, Loading, Problem, Unknown } from "./pieces.js";
import { textsAsked, useSession } from "./session.js";
import { change, href } from "./url_state.js";

const FILTERS = ["severity", "type", "category", "outcome", "destination", "model", "tenant"];
const SEVERITIES = ["critical", "warning", "info"].map((name) => [name, name]);
const OUTCOMES = ["delivered", "undelivered", "pending"].map((name) => [name, name]);

const choices = (values) => [...new Set(values.filter(Boolean))].sort().map((value) => [value, value]);

export function Alerts({ parameters }) {
  const me = useSession();
  const chosen = Object.fromEntries(FILTERS.filter((name) => parameters[name]).map((name) => [name, parameters[name]]));
  const query = { ...chosen, limit: 50, ...textsAsked(me, parameters) };
  const { data, error, loading, again } = useGet("alerts", query, 10);
  const [older, setOlder] = useState({ alerts: [], next: null, key: "" });
  const [problem, setProblem] = useState(null);
  const key = JSON.stringify(query);
  useEffect(() => setOlder({ alerts: [], next: null, key }), [key]);

  const first = data?.alerts ?? [];
  const known = new Set(first.map(({ id }) => id));
  const alerts = [...first, ...older.alerts.filter(({ id }) => !known.has(id))];
  const next = older.alerts.length ? older.next : data?.next;
  const more = async () => {
    try {
      const page = await get("alerts", { ...query, before: next });
      setOlder((old) => (old.key === key ? { ...old, alerts: [...old.alerts, ...page.alerts], next: page.next } : old));
      setProblem(null);
    } catch (failure) {
      setProblem(failure);
    }
  };
  const pick = (name, label, options) => html`<${Choice} label=${label} value=${parameters[name]} options=${options} onChoose=${(value) => change({ [name]: value })} />`;
  return html`
    <div class="view-header">
      <h1>Alerts</h1>
      ${data && html`<p class="state"><span class=${`dot dot-${data.undelivered ? "bad" : "good"}`} aria-hidden="true" />
        ${data.undelivered ? html`<a href=${href({ ...parameters, view: "alerts", outcome: "undelivered" })}>${figures.count(data.undelivered)} undelivered</a>` : data.undelivered === 0 ? "None undelivered" : "Undelivered: not known"}</p>`}
      <button type="button" onClick=${again} disabled=${loading}>Reload</button>
    </div>
    <form class="filters" onSubmit=${(event) => event.preventDefault()} aria-label="Filters">
      ${pick("severity", "severity", SEVERITIES)}
      ${pick("type", "alert", alertTypes())}
      ${pick("category", "category", choices(alerts.map(({ category }) => category)))}
      ${pick("outcome", "outcome", OUTCOMES)}
      ${pick("destination", "destination", choices(alerts.flatMap(({ deliveries }) => (deliveries ?? []).map(({ destination }) => destination))))}
      ${pick("model", "model", choices(alerts.map(({ model }) => model)))}
      ${pick("tenant", "tenant", choices(alerts.map(({ tenant }) => tenant)))}
      ${Object.keys(chosen).length > 0 && html`<button type="button" onClick=${() => change(Object.fromEntries(FILTERS.map((name) => [name, null])))}>Clear</button>`}
    </form>
    <${Problem} error=${error} again=${again} />
    ${!data && loading && html`<${Loading} />`}
    ${alerts.length > 0 && html`<p class="hint">A destination is listed once it has answered, or the relay has given up. Those that have not answered yet are under <a href=${href({ view: "health" })}>Health</a>.</p>`}
    ${alerts.length > 0 && html`<h2 class="unseen">The newest first</h2>`}
    <div class="alerts">${alerts.map((alert) => html`<${AlertCard} alert=${alert} onDone=${again} key=${alert.id} />`)}</div>
    ${data && !alerts.length &&
    (Object.keys(chosen).length
      ? html`<${Empty} title="No alert fits these filters.">Clear them to see the others.<//>`
      : html`<${Empty} title="No alert was raised.">Alerts appear here with the first word of a refusal. They are kept for as long as the outputs in Redis.<//>`)}
    <${Problem} error=${problem} again=${more} />
    ${next && html`<p class="more"><button type="button" onClick=${more}>Show older alerts</button></p>`}
    <${Unknown} words=${data?.unknown} />`;
}
