// Signing in: by a link that was made for this browser, or with a key. The key goes into one request and is
// kept nowhere; the session is a cookie that scripts cannot read.

import { useEffect, useState } from "preact/hooks";
import { post, remove } from "fallow/client.js";
import { html } from "fallow/html.js";
import { reconnect } from "fallow/live.js";
import { account, attempt, balance, loadAccount, place, trouble } from "fallow/store.js";

export function SignIn({ token }) {
  const [key, setKey] = useState("");
  const enter = async (body, headers) => {
    const done = await attempt(async () => {
      await post("/v1/sessions", body, { headers });
      await loadAccount();
      reconnect();
      return true;
    });
    if (done) place.value = location.hash = "/";
  };
  useEffect(() => {
    if (token) {
      history.replaceState(null, "", "#/sign-in"); // it works once; it need not stay in the history
      enter({ token }, {});
    }
  }, []);
  const send = (event) => {
    event.preventDefault();
    enter({}, { Authorization: `Bearer ${key.trim()}` });
    setKey("");
  };
  return html`<h1>Sign in</h1>
    <form onSubmit=${send}>
      <label>Key <input type="password" autocomplete="off" required value=${key} onInput=${(e) => setKey(e.target.value)} /></label>
      <button>Sign in</button>
    </form>
    <p class="quiet">A session may do what its key may, for 12 hours at most, and ends with the key.</p>`;
}

export async function signOut() {
  await attempt(() => remove("/v1/sessions"));
  account.value = balance.value = null;
  reconnect();
  trouble.value = null;
}
