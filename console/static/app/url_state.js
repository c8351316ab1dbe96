// The state of the page is the query of its URL, so that a link shows another person the same.
import { useEffect, useState } from "./html.js";

const listeners = new Set();

/** Return the query as an object of strings. */
export function current() {
  return Object.fromEntries(new URLSearchParams(location.search));
}

/** Return the query, as for a link, with these parameters and no others; empty ones are left out. */
export function href(parameters) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") query.set(name, value);
  }
  return `?${query}`;
}

function moved() {
  for (const listener of listeners) listener(current());
}

/** Go to a state: a new entry of the history, as a link makes one. */
export function go(parameters) {
  history.pushState(null, "", href(parameters));
  moved();
}

/** Change some parameters in place; null removes one. */
export function change(parameters) {
  history.replaceState(null, "", href({ ...current(), ...parameters }));
  moved();
}

window.addEventListener("popstate", moved);

/** Return the query, and draw again when it changes. */
export function useUrl() {
  const [parameters, set] = useState(current);
  useEffect(() => {
    listeners.add(set);
    return () => listeners.delete(set);
  }, []);
  return parameters;
}

/** Follow a link of the page without loading it anew, unless the person wants a new tab. */
export function followed(event) {
  if (event.defaultPrevented || event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href^='?']");
  if (!link) return;
  event.preventDefault();
  history.pushState(null, "", link.getAttribute("href"));
  moved();
}
