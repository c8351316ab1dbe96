// The list of keys, and the preferences of this device.
import { html, useState } from "./html.js";
import { Dialog } from "./dialog.js";
import { KEYS, singleKeys, switchKeys } from "./keys.js";
import { THEMES, chooseTheme, theme } from "./theme.js";

export function Help({ open, onClose }) {
  const [on, setOn] = useState(singleKeys);
  const [chosen, choose] = useState(theme);
  return html`<${Dialog} title="Keys and appearance" open=${open} onClose=${onClose}>
    <dl class="keys">${KEYS.map(([key, words]) => html`<div><dt><kbd>${key}</kbd></dt><dd>${words}</dd></div>`)}</dl>
    <label class="switch">
      <input type="checkbox" checked=${on} onChange=${(event) => {
        switchKeys(event.target.checked);
        setOn(event.target.checked);
      }} />
      Single keys act (not <kbd>?</kbd>, which always does)
    </label>
    <fieldset class="themes">
      <legend>Appearance</legend>
      ${THEMES.map(([value, words]) => html`<label>
        <input type="radio" name="theme" value=${value} checked=${chosen === value} onChange=${() => {
          chooseTheme(value);
          choose(value);
        }} /> ${words}</label>`)}
    </fieldset>
  <//>`;
}
