// The frame of all views: the bar with the views, the session, the keys.
import { Component, html, useEffect, useState } from "./html.js";
import { useGet } from "./api.js";
import { Announcer } from "./announce.js";
import { Help } from "./help.js";
import { moveFocus, useKeys } from "./keys.js";
import { Loading, Name, Problem } from "./pieces.js";
import { Session, SignIn } from "./session.js";
import { change, followed, go, href, useUrl } from "./url_state.js";
import { Alerts } from "./alerts_view.js";
import { Health } from "./health_view.js";
import { Now } from "./now_view.js";
import { Rates } from "./rates_view.js";
import { Response } from "./response_view.js";
import { Search } from "./search_view.js";

const VIEWS = { now: ["Now", Now], alerts: ["Alerts", Alerts], rates: ["Rates", Rates], health: ["Health", Health], search: ["Search", Search] };
/** All views, without a prototype: any word may stand in a link. */
const ALL_VIEWS = { __proto__: null, ...VIEWS, response: ["Response", Response] };

/** A view that fails says so, and leaves the others. */
class Safe extends Component {
  componentDidCatch(error) {
    console.error(error);
    this.setState({ error });
  }

  componentDidUpdate(before) {
    if (before.of !== this.props.of && this.state.error) this.setState({ error: null });
  }

  render({ children }, { error }) {
    if (!error) return children;
    return html`<${Problem} error=${{ message: `This page cannot be drawn: ${error.message}` }} again=${() => this.setState({ error: null })} />`;
  }
}

function textsWords(me, asked) {
  if (me.may_show_texts === false) return "Texts are hidden, and cannot be shown: the server has no place to record who looks.";
  return asked ? "Texts are shown. The server records who looked at them." : "Texts are hidden until you ask for them. The server records who looks.";
}

function Bar({ view, me, onHelp }) {
  const listed = Object.entries(VIEWS).filter(([name]) => name !== "search" || me.archive);
  const texts = new URLSearchParams(location.search).get("texts");
  return html`<header class="bar">
    <a class="skip" href="#main">To the content</a>
    <a class="brand" href=${href({ view: "now", texts })}><img src="static/icon.svg" alt="" width="24" height="24" />deltaloom</a>
    <nav aria-label="Views">
      ${listed.map(([name, [title]]) => html`<a href=${href({ view: name, texts })} aria-current=${name === view ? "page" : undefined}>${title}</a>`)}
    </nav>
    <div class="bar-end">
      ${me.source && html`<span class="source" title="The prefix of the streams"><${Name} of=${me.source} most=${24} /></span>`}
      ${me.user && html`<span class="user"><${Name} of=${me.user} most=${24} /></span>`}
      <button type="button" class="quiet" onClick=${onHelp} aria-haspopup="dialog" aria-keyshortcuts="?"><kbd aria-hidden="true">?</kbd> Keys</button>
    </div>
  </header>`;
}

export function App() {
  const parameters = useUrl();
  const me = useGet("me", {});
  const [help, setHelp] = useState(false);
  const view = ALL_VIEWS[parameters.view] ? parameters.view : "now";
  const [title, View] = ALL_VIEWS[view];
  const to = (name) => () => go({ view: name, texts: parameters.texts });

  useEffect(() => {
    document.title = `${title} – deltaloom`;
  }, [title]);
  useKeys({
    "?": () => setHelp(true),
    n: to("now"),
    a: to("alerts"),
    r: to("rates"),
    h: to("health"),
    s: () => me.data?.archive && to("search")(),
    u: () => history.back(),
    j: () => moveFocus(1),
    k: () => moveFocus(-1),
    "/": () => document.querySelector("#main input, #main select")?.focus(),
    t: () => me.data?.texts === "hidden" && change({ texts: parameters.texts ? null : "1" }),
  });

  if (me.error && me.error.status === 401) return html`<${SignIn} error=${me.error} onSignedIn=${me.again} />`;
  if (me.error && !me.data) return html`<main class="sign-in" id="main"><h1>deltaloom</h1><${Problem} error=${me.error} again=${me.again} /></main>`;
  if (!me.data) return html`<main class="sign-in" id="main"><${Loading} /></main>`;
  const hidden = me.data.texts === "hidden";
  return html`<${Session.Provider} value=${me.data}>
    <div class="page" onClick=${followed}>
      <${Bar} view=${view} me=${me.data} onHelp=${() => setHelp(true)} />
      ${hidden &&
      html`<div class="texts-bar">
        <p>${textsWords(me.data, parameters.texts)}</p>
        <button disabled=${me.data.may_show_texts === false} type="button" aria-keyshortcuts="t" onClick=${() => change({ texts: parameters.texts ? null : "1" })}>${parameters.texts ? "Hide texts" : "Show texts"}</button>
      </div>`}
      <main id="main" tabindex="-1" class=${`view view-${view}`}><${Safe} of=${view}><${View} parameters=${parameters} key=${view} /><//></main>
      <footer class="foot">deltaloom ${me.data.version}. Times are those of this device.</footer>
    </div>
    <${Announcer} />
    <${Help} open=${help} onClose=${() => setHelp(false)} />
  <//>`;
}
