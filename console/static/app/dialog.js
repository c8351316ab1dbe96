// A modal dialog: the browser's own, which keeps the focus inside and gives it back.
import { html, useEffect, useRef } from "./html.js";

export function Dialog({ title, open, onClose, children }) {
  const place = useRef(null);
  useEffect(() => {
    const dialog = place.current;
    if (open && !dialog.open) dialog.showModal();
    if (!open && dialog.open) dialog.close();
  }, [open]);
  const outside = (event) => event.target === place.current && onClose();
  return html`<dialog ref=${place} aria-labelledby="dialog-title" onClose=${onClose} onClick=${outside}>
    ${open &&
    html`<div class="dialog">
      <header>
        <h2 id="dialog-title">${title}</h2>
        <button type="button" class="quiet" onClick=${onClose}>Close</button>
      </header>
      ${children}
    </div>`}
  </dialog>`;
}
