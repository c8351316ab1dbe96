// The keyboard. Single keys can be switched off, since speech input types them by accident (WCAG 2.1.4).
import { useEffect } from "./html.js";
import { keep, preference } from "./theme.js";

const OFF = "deltaloom-keys-off";

/** What each key does, for the list of `?`. Views add to them with useKeys. */
export const KEYS = [
  ["?", "Show or hide this list"],
  ["n", "Now"],
  ["a", "Alerts"],
  ["r", "Rates"],
  ["h", "Health"],
  ["s", "Search, where there is an archive"],
  ["f", "Freeze, and go on"],
  ["j", "Next response or alert"],
  ["k", "The one before"],
  ["Enter", "Open it"],
  ["/", "To the filters"],
  ["u", "Back"],
  ["t", "Show or hide texts, where they are hidden"],
  ["Esc", "Close a dialog, leave a field"],
];

export const singleKeys = () => !preference(OFF);
export const switchKeys = (on) => keep(OFF, on ? "" : "1");

const typing = (target) => target.closest?.("input, select, textarea, [contenteditable]");

/** Call `keys[key]()` for a pressed key, unless the person types or a dialog is open. */
export function useKeys(keys) {
  useEffect(() => {
    const pressed = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
      if (event.key === "Escape" && typing(event.target)) return event.target.blur();
      if (typing(event.target) || document.querySelector("dialog[open]")) return;
      if (!singleKeys() && event.key !== "?") return;
      const action = keys[event.key];
      if (!action) return;
      event.preventDefault();
      action();
    };
    document.addEventListener("keydown", pressed);
    return () => document.removeEventListener("keydown", pressed);
  });
}

/** Move the focus to the next or the former row of a list; rows have the attribute `data-row`. */
export function moveFocus(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (!rows.length) return;
  const now = rows.indexOf(document.activeElement?.closest?.("[data-row]"));
  const next = rows[now < 0 ? (step > 0 ? 0 : rows.length - 1) : Math.min(rows.length - 1, Math.max(0, now + step))];
  (next.matches("a, button, summary") ? next : (next.querySelector("a, button, summary") ?? next)).focus();
  next.scrollIntoView({ block: "nearest" });
}
