// One polite live region. It says at most one sentence in five seconds: the newest one.
import { html, useEffect, useState } from "./html.js";

const PAUSE = 5000;
let waiting = null;
let last = -Infinity;
let timer = 0;
let speak = () => {};

function next() {
  timer = 0;
  if (waiting === null) return;
  last = performance.now();
  speak(waiting);
  waiting = null;
}

/** Have screen readers say a sentence, soon. A newer one takes the place of one that still waits. */
export function announce(sentence) {
  waiting = sentence;
  timer ||= setTimeout(next, Math.max(0, last + PAUSE - performance.now()));
}

export function Announcer() {
  const [sentence, set] = useState("");
  useEffect(() => {
    speak = set;
  }, []);
  return html`<p class="unseen" role="status" aria-live="polite">${sentence}</p>`;
}
