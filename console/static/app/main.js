import { html, render } from "./html.js";
import { App } from "./app.js";
import { showTheme } from "./theme.js";

showTheme();
const place = document.getElementById("app");
place.replaceChildren();
render(html`<${App} />`, place);
