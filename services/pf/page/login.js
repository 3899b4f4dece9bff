/** Logging in: with a token, of which the page is told what it is good for. */
import { html, useState } from "./vendor/preact.js";

/** Asks for a token. */
export function LogIn({ refused, onToken }) {
  const [token, setToken] = useState("");
  const submit = (event) => {
    event.preventDefault();
    onToken(token.trim());
  };
  return html`
    <main class="login">
      <form class="card" onSubmit=${submit}>
        <h1>ringfabric</h1>
        <label for="token">Token</label>
        <input id="token" type="password" autocomplete="off" spellcheck="false" required value=${token}
          onInput=${(event) => setToken(event.target.value)}
          aria-invalid=${refused !== undefined} aria-describedby="token-help token-refused" />
        <p id="token-refused" class="refused" role="alert">${refused}</p>
        <button type="submit" class="main">Log in</button>
        <p id="token-help" class="help">
          The operator's token is in the file <code>token</code> of the run directory; <code>fabric page</code> prints this
          page's address with it. <code>fabric token add NAME read</code> makes one that only looks.
          It is kept for this tab alone.
        </p>
      </form>
    </main>
  `;
}
