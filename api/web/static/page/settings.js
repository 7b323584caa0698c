// Screen 8: keys, the browsers that are signed in, webhooks with what became of each message.

import { useEffect, useState } from "preact/hooks";
import { get, post, remove, rows } from "fallow/client.js";
import { html } from "fallow/html.js";
import { account, attempt } from "fallow/store.js";
import { clock } from "fallow/words.js";

const ROWS_MAX = 100;
const DELIVERIES_MAX = 50;

export function Settings() {
  const [keys, setKeys] = useState(null);
  const [sessions, setSessions] = useState([]);
  const [hooks, setHooks] = useState(null);
  const can = (scope) => account.value?.scopes.includes(scope);
  const load = () =>
    attempt(async () => {
      if (can("keys:write")) {
        setKeys(await rows("/v1/keys?limit=100", ROWS_MAX));
        setSessions((await get("/v1/sessions")).data);
      }
      if (can("webhooks:write")) setHooks(await rows("/v1/webhooks?limit=100", ROWS_MAX));
    });
  useEffect(() => {
    load();
  }, [account.value?.account]);
  return html`
    <h1>Settings</h1>
    ${keys && html`<${Keys} keys=${keys} load=${load} />`}
    ${sessions.length > 0 && html`<${Sessions} sessions=${sessions} load=${load} />`}
    ${hooks && html`<${Webhooks} hooks=${hooks} load=${load} />`}
    ${!keys && !hooks && html`<p class="quiet">This key may change neither keys nor webhooks.</p>`}
  `;
}

// A secret is shown once, and kept nowhere here.
function Secret({ words, secret, close }) {
  return html`<div class="notice" role="status">
    <p>${words} It is shown this once:</p>
    <p><code>${secret}</code></p>
    <p><button onClick=${() => navigator.clipboard?.writeText(secret)}>Copy</button> <button onClick=${close}>I have it</button></p>
  </div>`;
}

function Keys({ keys, load }) {
  const [secret, setSecret] = useState(null);
  const make = async (event) => {
    event.preventDefault();
    const form = event.target;
    const given = new FormData(form);
    const scopes = account.value.scopes.filter((scope) => given.get(scope));
    const made = await attempt(() => post("/v1/keys", { name: given.get("name"), scopes }));
    if (!made) return;
    setSecret(made.secret);
    form.reset();
    await load();
  };
  const revoke = (key) => {
    if (confirm(`Revoke ${key.name}? Whatever uses it stops at once.`)) attempt(() => remove(`/v1/keys/${key.id}`)).then(load);
  };
  const live = keys.filter((key) => key.revoked_at === null);
  return html`<section>
    <h2>Keys</h2>
    ${secret && html`<${Secret} words="The new key." secret=${secret} close=${() => setSecret(null)} />`}
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
      <thead><tr><th scope="col">Name</th><th scope="col">May</th><th scope="col">Made</th><td></td></tr></thead>
      <tbody>
        ${live.map(
          (key) => html`<tr key=${key.id}>
            <th scope="row">${key.name}<small>${key.public_id}</small></th>
            <td>${key.scopes.join(", ")}</td>
            <td>${key.created_at.slice(0, 10)}</td>
            <td><button onClick=${() => revoke(key)} aria-label="Revoke ${key.name}">Revoke</button></td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <details>
      <summary>Make a key</summary>
      <form onSubmit=${make}>
        <label>Name <input name="name" required maxlength="64" /></label>
        <fieldset>
          <legend>It may</legend>
          ${account.value.scopes.map(
            (scope) => html`<label class="check" key=${scope}><input type="checkbox" name=${scope} />${scope}</label>`,
          )}
        </fieldset>
        <button>Make it</button>
      </form>
    </details>
  </section>`;
}

function Sessions({ sessions, load }) {
  return html`<section>
    <h2>Signed-in browsers</h2>
    <ul>
      ${sessions.map(
        (one) => html`<li key=${one.id}>From ${one.address}, since ${one.created_at.slice(0, 10)} ${clock(one.created_at)} UTC${" "}
          <button onClick=${() => attempt(() => remove(`/v1/sessions/${one.id}`)).then(load)}>Sign out</button></li>`,
      )}
    </ul>
  </section>`;
}

function Webhooks({ hooks, load }) {
  const [secret, setSecret] = useState(null);
  const make = async (event) => {
    event.preventDefault();
    const form = event.target;
    const made = await attempt(() => post("/v1/webhooks", { url: new FormData(form).get("url") }));
    if (!made) return;
    setSecret(made.secret);
    form.reset();
    await load();
  };
  return html`<section>
    <h2>Webhooks</h2>
    ${secret && html`<${Secret} words="What signs its messages." secret=${secret} close=${() => setSecret(null)} />`}
    ${hooks.map((hook) => html`<${Hook} key=${hook.id} hook=${hook} load=${load} />`)}
    <form onSubmit=${make}>
      <label>Address <input name="url" type="url" required /></label>
      <button>Add it</button>
    </form>
  </section>`;
}

function Hook({ hook, load }) {
  const [deliveries, setDeliveries] = useState(null);
  const read = () =>
    attempt(() => rows(`/v1/webhooks/${hook.id}/deliveries?limit=${DELIVERIES_MAX}`, DELIVERIES_MAX)).then(
      (found) => found && setDeliveries(found),
    );
  const again = (since) => attempt(() => post(`/v1/webhooks/${hook.id}/replay`, { since })).then(read);
  const drop = () => {
    if (confirm(`Remove ${hook.url}?`)) attempt(() => remove(`/v1/webhooks/${hook.id}`)).then(load);
  };
  return html`<details onToggle=${({ target }) => target.open && read()}>
    <summary>${hook.url} · ${hook.state}${hook.reason ? `: ${hook.reason}` : ""}</summary>
    <p>
      <button onClick=${() => attempt(() => post(`/v1/webhooks/${hook.id}/test`, {})).then(read)}>Send a test</button>${" "}
      <button onClick=${drop}>Remove</button>
    </p>
    ${deliveries?.length > 0 &&
    html`<div class="wide" tabindex="0" role="group" aria-label="Table of messages, scrolls sideways"><table>
      <thead><tr><th scope="col">Message</th><th scope="col">State</th><th scope="col" class="number">Attempts</th>
        <th scope="col">Last answer</th><th scope="col">UTC</th><td></td></tr></thead>
      <tbody>
        ${deliveries.map(
          (one) => html`<tr key=${one.id}>
            <th scope="row">${one.type}</th><td>${one.state}</td><td class="number">${one.attempts}</td>
            <td>${one.last_error || one.last_status || ""}</td><td>${clock(one.at)}</td>
            <td>${one.state === "failed" && html`<button onClick=${() => again(one.at)}>Send again from here</button>`}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>`}
  </details>`;
}
