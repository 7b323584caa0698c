// An owner's forms and offers: a node that joins, GPUs that are offered, and what is on offer.

import { post, remove } from "fallow/client.js";
import { html } from "fallow/html.js";
import { attempt, markets } from "fallow/store.js";
import { count, money } from "fallow/words.js";

export function NewNode({ load }) {
  const add = async (event) => {
    event.preventDefault();
    const form = event.target;
    const given = new FormData(form);
    const body = { name: given.get("name"), market: given.get("market"), gpus: Number(given.get("gpus")) };
    if (given.get("simulated")) body.simulated = true;
    if (await attempt(() => post("/v1/nodes", body))) form.reset();
    await attempt(load);
  };
  const hasDemo = [...markets.value.values()].some((market) => market.is_demo);
  return html`<details>
    <summary>Add a node</summary>
    <form onSubmit=${add}>
      <label>Name <input name="name" required maxlength="64" /></label>
      <label>Market <select name="market">${[...markets.value.keys()].map((id) => html`<option key=${id}>${id}</option>`)}</select></label>
      <label>GPUs <input name="gpus" type="number" min="1" max="1024" required defaultValue="8" /></label>
      ${hasDemo && html`<label class="check"><input type="checkbox" name="simulated" />Simulated: no agent needed</label>`}
      <button>Add it</button>
    </form>
  </details>`;
}

export function Offers({ nodes, offers, load }) {
  const add = async (event) => {
    event.preventDefault();
    const form = event.target;
    const given = new FormData(form);
    const body = {
      node: given.get("node"),
      gpus: Number(given.get("gpus")),
      reserve_price_per_gpu_hour: given.get("reserve"),
    };
    if (await attempt(() => post("/v1/offers", body))) form.reset();
    await attempt(load);
  };
  const live = offers.filter((offer) => offer.status !== "withdrawn" && offer.status !== "expired");
  const withdraw = (offer) => {
    if (confirm("Withdraw the offer? Who runs on it gets notice.")) {
      attempt(() => remove(`/v1/offers/${offer.id}`, { headers: { "If-Match": `"${offer.version}"` } })).then(() => attempt(load));
    }
  };
  return html`<h2>Offers</h2>
    ${live.length === 0
      ? html`<p class="quiet">Nothing is on offer.</p>`
      : html`<div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
          <thead><tr><th scope="col">Node</th><th scope="col" class="number">GPUs</th><th scope="col" class="number">You get at least</th>
            <th scope="col" class="number">Sells from</th><th scope="col">State</th><td></td></tr></thead>
          <tbody>
            ${live.map(
              (offer) => html`<tr key=${offer.id}>
                <th scope="row">${nodes.find((node) => node.id === offer.node)?.name || offer.node}<small>${offer.market}</small></th>
                <td class="number">${count(offer.gpus)}</td>
                <td class="number">${money(offer.reserve_price_per_gpu_hour)}</td>
                <td class="number">${money(offer.gross_reserve_price_per_gpu_hour)}</td>
                <td>${offer.status}</td>
                <td><button onClick=${() => withdraw(offer)} aria-label="Withdraw ${offer.id}">Withdraw</button></td>
              </tr>`,
            )}
          </tbody>
        </table></div>`}
    <details>
      <summary>Offer GPUs</summary>
      <form onSubmit=${add}>
        <label>Node <select name="node">${nodes.map((node) => html`<option key=${node.id} value=${node.id}>${node.name}</option>`)}</select></label>
        <label>GPUs <input name="gpus" type="number" min="1" max="1024" required defaultValue="8" /></label>
        <label>Reserve, $ per GPU·h <input name="reserve" inputmode="decimal" required pattern="\\d{1,6}(\\.\\d{1,6})?" /></label>
        <button>Offer them</button>
      </form>
    </details>`;
}
