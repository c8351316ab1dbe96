// Who looks, and what the server lets them do; and the page that asks for the token.
import { createContext, html, useContext, useState } from "./html.js";
import { post } from "./api.js";

export const Session = createContext({ user: null, actions: false, texts: "shown", archive: false });
export const useSession = () => useContext(Session);

/** Return the parameter that asks for hidden texts, if the URL does. */
export const textsAsked = (me, parameters) => (me.texts === "hidden" && parameters.texts === "1" ? { texts: "1" } : {});

export function SignIn({ error, onSignedIn }) {
  const [said, say] = useState(null);
  const send = async (event) => {
    event.preventDefault();
    const token = new FormData(event.target).get("token");
    try {
      await post("session", { token });
      onSignedIn();
    } catch (refusal) {
      say(refusal.message);
    }
  };
  return html`<main class="sign-in" id="main">
    <h1>deltaloom</h1>
    <p>${error.message}</p>
    ${error.login &&
    html`<form onSubmit=${send}>
      <label class="field"><span>Token</span>
        <input name="token" type="password" autocomplete="current-password" required autofocus /></label>
      <button type="submit" class="primary">Sign in</button>
      <p class="hint">The token is in the file that DELTALOOM_CONSOLE_TOKEN_FILE names on the server.</p>
      ${said && html`<p class="problem" role="alert">${said}</p>`}
    </form>`}
  </main>`;
}
