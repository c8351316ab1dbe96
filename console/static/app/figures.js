// Numbers and times as people read them.
const numbers = new Intl.NumberFormat("en");
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const minute = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });
const day = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit" });

export const UNKNOWN = "not known";

const known = (value) => value !== null && value !== undefined && Number.isFinite(value);

export const count = (value) => (known(value) ? numbers.format(value) : UNKNOWN);

/** Return a count with its noun: "1 response", "2 responses". */
export const counted = (value, noun, plural = `${noun}s`) => `${count(value)} ${value === 1 ? noun : plural}`;

/** Return a share in per cent. */
export function share(value) {
  if (!known(value)) return UNKNOWN;
  const percent = value * 100;
  return `${percent > 0 && percent < 10 ? percent.toFixed(1) : percent.toFixed(percent % 1 ? 1 : 0)} %`;
}

/** Return a time of a day with seconds, or with its date if it is older than half a day. */
export function time(ms) {
  if (!known(ms)) return UNKNOWN;
  return Math.abs(Date.now() - ms) < 43_200_000 ? clock.format(ms) : day.format(ms);
}

export const shortTime = (ms) => (known(ms) ? minute.format(ms) : UNKNOWN);
export const longTime = (ms) => (known(ms) ? day.format(ms) : UNKNOWN);
export const iso = (ms) => (known(ms) ? new Date(ms).toISOString() : undefined);

/** Return a duration in its most readable unit: "3 ms", "1.4 s", "5 min", "3 h", "2 days". */
export function duration(ms) {
  if (!known(ms)) return UNKNOWN;
  if (ms < 0) return "0 ms";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1000).toFixed(ms < 10_000 ? 1 : 0)} s`;
  if (ms < 5_400_000) return `${Math.round(ms / 60_000)} min`;
  if (ms < 172_800_000) return `${Math.round(ms / 3_600_000)} h`;
  return `${Math.round(ms / 86_400_000)} days`;
}

/** Return how long ago a time was. */
export const ago = (ms, now = Date.now()) => (known(ms) ? `${duration(Math.max(0, now - ms))} ago` : UNKNOWN);
