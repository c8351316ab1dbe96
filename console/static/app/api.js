// Requests to the server. Every URL is relative to the page, whatever path a proxy gives it.
import { useEffect, useRef, useState } from "./html.js";

/** An answer that is no success: `message` is for people, `status` is 0 if the server did not answer. */
export class ApiError extends Error {
  constructor(message, status, body = {}) {
    super(message);
    this.status = status;
    this.login = body.login !== false;
  }
}

const WORDS = {
  __proto__: null,
  0: "The console's server does not answer. This page tries again when you reload it.",
  401: "You are not signed in.",
  403: "You may not see this.",
  404: "The server knows nothing of this.",
  429: "Too many requests. Wait a moment, then reload.",
  503: "The server cannot reach Redis at the moment.",
};

/** Return the URL of a part of the API, with a query of those parameters that have a value. */
export function url(path, parameters = {}) {
  const address = new URL(`api/${path}`, document.baseURI);
  address.search = "";
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined && value !== null && value !== "") address.searchParams.set(name, value);
  }
  return address;
}

async function answer(address, options) {
  let response;
  try {
    response = await fetch(address, { credentials: "same-origin", ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(WORDS[0], 0);
  }
  if (response.status === 204) return null;
  let body;
  try {
    body = await response.json();
  } catch {
    body = {};
  }
  if (response.ok) return body;
  throw new ApiError(body.error ?? WORDS[response.status] ?? `The server answered ${response.status}.`, response.status, body);
}

/** Return the JSON of a page; throw ApiError. */
export function get(path, parameters, signal) {
  return answer(url(path, parameters), { signal });
}

/** Return why the server refuses a stream as an ApiError, or null if it would give it. */
export async function refusal(path, parameters) {
  const controller = new AbortController();
  try {
    const response = await fetch(url(path, parameters), { credentials: "same-origin", signal: controller.signal });
    if (response.ok) return null;
    const body = await response.json().catch(() => ({}));
    return new ApiError(body.error ?? WORDS[response.status] ?? `The server answered ${response.status}.`, response.status, body);
  } catch {
    return null; // It does not answer at all: the page says that the connection is lost.
  } finally {
    controller.abort();
  }
}

/** Ask for an action; return its JSON, or throw ApiError. */
export function post(path, body = {}) {
  return answer(url(path), {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
}

/**
 * Return `{data, error, loading, again}` of a page, asked for anew when its parameters change, and every `seconds` while
 * somebody looks. The former data stay until the new ones are there.
 */
export function useGet(path, parameters, seconds = 0) {
  const [state, set] = useState({ data: null, error: null, loading: true });
  const [turn, setTurn] = useState(0);
  const key = `${path} ${JSON.stringify(parameters)}`;
  const shown = useRef(key);
  useEffect(() => {
    const controller = new AbortController();
    const data = shown.current === key ? undefined : null;
    shown.current = key;
    set((old) => ({ ...old, loading: true, ...(data === null ? { data } : {}) }));
    get(path, parameters, controller.signal).then(
      (data) => set({ data, error: null, loading: false }),
      (error) => error.name === "AbortError" || set((old) => ({ ...old, error, loading: false })),
    );
    return () => controller.abort();
  }, [key, turn]);
  useEffect(() => {
    if (!seconds) return undefined;
    const timer = setInterval(() => document.hidden || setTurn((n) => n + 1), seconds * 1000);
    return () => clearInterval(timer);
  }, [seconds]);
  return { ...state, again: () => setTurn((n) => n + 1) };
}
