// One chart: lines and areas over time, drawn by uPlot on a canvas, with a description for those who do not see it.
import { html, useEffect, useLayoutEffect, useRef } from "./html.js";
import UPlot from "../vendor/uplot.js";

/** Return the colours of the theme as the browser computed them: a canvas does not understand variables of CSS. */
function colours(probe) {
  const of = (name) => {
    probe.className = `probe probe-${name}`;
    return getComputedStyle(probe).color;
  };
  return Object.fromEntries(["responses", "refused", "blocked", "band", "blocked-band", "area", "grid", "axis", "spike", "spike-edge"].map((name) => [name, of(name)]));
}

function spikesPlugin(spikes, ground, edge) {
  return {
    hooks: {
      drawClear: (plot) => {
        const { ctx, bbox } = plot;
        ctx.save();
        ctx.beginPath();
        ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
        ctx.clip();
        for (const { since, until } of spikes.current) {
          const from = Math.max(bbox.left, plot.valToPos(since / 1000, "x", true));
          const to = Math.min(bbox.left + bbox.width, until ? plot.valToPos(until / 1000, "x", true) : bbox.left + bbox.width);
          if (to <= bbox.left) continue;
          ctx.fillStyle = ground;
          ctx.fillRect(from, bbox.top, Math.max(2, to - from), bbox.height);
          ctx.fillStyle = edge;
          ctx.fillRect(from, bbox.top, Math.max(2, to - from), 3 * devicePixelRatio);
        }
        ctx.restore();
      },
    },
  };
}

/**
 * A chart of `rows`, whose first column is a time in milliseconds.
 *
 * `span` is the time that is drawn, in milliseconds; without it, that of the rows. With `elapsed`, the time is one since the beginning, not of a day. `series` lists the further columns as `{label, colour, width, fill, value}`; `bands` pairs of their numbers.
 */
export function Chart({ rows, series, bands = [], spikes = [], height = 150, title, format = (value) => value, most, elapsed = false, span }) {
  const place = useRef(null);
  const probe = useRef(null);
  const plot = useRef(null);
  const marked = useRef(spikes);
  marked.current = spikes;
  const data = () => [rows.map((row) => row[0] / 1000), ...series.map((_, n) => rows.map((row) => row[n + 1]))];
  const drawn = useRef(span);
  drawn.current = span;
  const newest = useRef(data);
  newest.current = data;

  useLayoutEffect(() => {
    const make = () => {
      plot.current?.destroy();
      const ink = colours(probe.current);
      const axis = { stroke: ink.axis, grid: { stroke: ink.grid, width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
      plot.current = new UPlot(
        {
          width: Math.max(160, place.current.clientWidth),
          height,
          padding: [8, 16, 0, 0],
          legend: { show: false },
          cursor: { show: false },
          select: { show: false },
          scales: { x: { time: !elapsed, range: (_, from, to) => drawn.current?.map((at) => at / 1000) ?? [from, to] }, y: { range: (_, low, high) => [0, Math.max(most ?? 1, (high || 0) * 1.1)] } },
          axes: [
            { ...axis, size: 24, values: elapsed ? (_, ticks) => ticks.map((seconds) => `${seconds} s`) : [[86400, "{D} {MMM}", null, null, null, null, null, null, 1], [3600, "{HH}:{mm}", null, null, null, null, null, null, 1], [60, "{HH}:{mm}", null, null, null, null, null, null, 1], [1, "{HH}:{mm}:{ss}", null, null, null, null, null, null, 1]] },
            { ...axis, size: 48, space: 28, values: (_, ticks) => ticks.map(format) },
          ],
          series: [
            {},
            ...series.map((line) => ({
              label: line.label,
              stroke: line.width === 0 ? "transparent" : ink[line.colour],
              width: line.width ?? 1.5,
              fill: line.fill && ink[line.fill],
              points: { show: rows.length < 2 },
            })),
          ],
          bands: bands.map(([high, low, colour]) => ({ series: [high, low], fill: ink[colour] })),
          plugins: [spikesPlugin(marked, ink.spike, ink["spike-edge"])],
        },
        newest.current(),
        place.current,
      );
    };
    make();
    const resized = new ResizeObserver(() => {
      if (!place.current) return;
      const width = Math.max(160, place.current.clientWidth);
      if (plot.current.width !== width) plot.current.setSize({ width, height });
    });
    resized.observe(place.current);
    const dark = matchMedia("(prefers-color-scheme: dark)");
    dark.addEventListener("change", make);
    document.addEventListener("themechange", make);
    return () => {
      resized.disconnect();
      dark.removeEventListener("change", make);
      document.removeEventListener("themechange", make);
      plot.current.destroy();
    };
  }, [series, height]);
  useEffect(() => plot.current?.setData(newest.current()), [rows, spikes]);

  return html`<figure class="chart" role="img" aria-label=${title}>
    <span ref=${probe} class="probe" aria-hidden="true" />
    <div ref=${place} class="plot" aria-hidden="true" />
  </figure>`;
}

export const Legend = ({ entries }) => html`<ul class="legend">
  ${entries.map(([colour, words]) => html`<li><span class=${`swatch probe-${colour}`} aria-hidden="true" />${words}</li>`)}
</ul>`;
