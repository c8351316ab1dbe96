// The stream of what happens now: one EventSource, merged into one state, and given to the page once a frame.
import { useEffect, useRef, useState } from "./html.js";
import { refusal, url } from "./api.js";

const MOST = 200;
const EMPTY = { at: null, behind: false, responses: [], counters: {}, chart: { step_ms: 10_000, rows: [], spikes: [] } };

/** Return the chart with the changed rows in their places. */
function merged(chart, changed) {
  if (!changed) return chart;
  const rows = new Map(chart.rows.map((row) => [row[0], row]));
  for (const row of changed.rows ?? []) rows.set(row[0], row);
  const ordered = [...rows.values()].sort((a, b) => a[0] - b[0]).slice(-180);
  return { ...chart, ...changed, rows: ordered, spikes: changed.spikes ?? chart.spikes };
}

/** Return the state after a change. Responses keep their objects if nothing of them changed. */
export function applied(state, change) {
  const gone = new Set(change.gone ?? []);
  const byId = new Map(state.responses.filter(({ id }) => !gone.has(id)).map((response) => [response.id, response]));
  for (const response of change.responses ?? []) byId.set(response.id, response);
  const responses = [...byId.values()].sort((a, b) => b.began - a.began || (a.id < b.id ? -1 : 1)).slice(0, MOST);
  return {
    at: change.at ?? state.at,
    behind: Boolean(change.behind),
    responses,
    counters: change.counters ?? state.counters,
    chart: merged(state.chart, change.chart),
  };
}

/**
 * Return `{state, status, error, missed}`: status is connecting, live, behind, lost or resting, and `missed` the number of
 * frames that came since the page was frozen. A page that nobody sees closes its stream.
 */
export function useLive(filters, frozen) {
  const [shown, show] = useState({ state: EMPTY, status: "connecting", error: null, missed: 0 });
  const newest = useRef(shown);
  const held = useRef(frozen);
  held.current = frozen;
  const key = JSON.stringify(filters);

  useEffect(() => {
    let source = null;
    let frame = 0;
    let retry = 0;
    let drawn = false;
    const put = (patch) => {
      newest.current = { ...newest.current, ...patch };
      if (frame) return;
      // A frozen page shows its first state, and then only whether the stream lives.
      frame = requestAnimationFrame(() => {
        frame = 0;
        const { state, status, error, missed } = newest.current;
        const holds = held.current && drawn;
        drawn ||= state.at !== null;
        show((old) => (holds ? { ...old, status, error, missed } : { state, status, error, missed: 0 }));
        if (!holds) newest.current.missed = 0;
      });
    };
    const take = (whole) => (event) => {
      const data = JSON.parse(event.data);
      const state = applied(whole ? EMPTY : newest.current.state, data);
      put({ state, status: state.behind ? "behind" : "live", error: null, missed: newest.current.missed + 1 });
    };
    const open = () => {
      if (source || document.hidden) return;
      source = new EventSource(url("now", filters));
      source.addEventListener("state", take(true));
      source.addEventListener("change", take(false));
      source.addEventListener("error", async () => {
        if (source?.readyState !== EventSource.CLOSED) {
          put({ status: "lost" });
          return;
        }
        close();
        // An EventSource does not tell why it was refused; a request to the same server does.
        put({ status: "lost", error: await refusal("now", filters) });
        retry = setTimeout(open, 3000);
      });
    };
    const close = () => {
      clearTimeout(retry);
      source?.close();
      source = null;
    };
    const seen = () => {
      if (document.hidden) {
        close();
        put({ status: "resting" });
      } else {
        put({ status: "connecting" });
        open();
      }
    };
    newest.current = { state: { ...EMPTY, chart: newest.current.state.chart }, status: "connecting", error: null, missed: 0 };
    put({});
    open();
    document.addEventListener("visibilitychange", seen);
    return () => {
      document.removeEventListener("visibilitychange", seen);
      cancelAnimationFrame(frame);
      close();
    };
  }, [key]);

  useEffect(() => {
    if (!frozen) show(() => ({ ...newest.current, missed: 0 }));
    newest.current.missed = 0;
  }, [frozen]);
  return shown;
}
