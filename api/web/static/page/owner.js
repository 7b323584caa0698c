// Screen 6: your machines. What each GPU does, what it earned, what stayed unsold, and taking it back.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { get, post, remove, rows } from "fallow/client.js";
import { html } from "fallow/html.js";
import { Reserve } from "fallow/reserve.js";
import { account, attempt, changes, markets } from "fallow/store.js";
import { clock, count, gpus, money } from "fallow/words.js";

const NODES_MAX = 100;
const SETTLE_MS = 300;

const nodes = signal(null);
const offers = signal([]);
const running = signal(new Map()); // node: the leases on it, as a recall would hit them
const summary = signal(null);

async function load() {
  const [mine, posted, earned] = await Promise.all([
    rows("/v1/nodes?limit=100", NODES_MAX),
    rows("/v1/offers?limit=100", NODES_MAX),
    get("/v1/owner/summary?group_by=day&limit=100"),
  ]);
  [nodes.value, offers.value, summary.value] = [mine, posted, earned];
  const hit = await Promise.all(mine.map((node) => post(`/v1/nodes/${node.id}/recall`, { preview: true })));
  running.value = new Map(mine.map((node, index) => [node.id, hit[index].leases]));
}

export function Owner() {
  const seen = changes.value;
  useEffect(() => {
    const timer = setTimeout(() => attempt(load), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [seen, account.value?.account]);
  if (nodes.value === null) return html`<h1>Your machines</h1><p class="quiet">Reading them…</p>`;
  return html`
    <h1>Your machines</h1>
    ${summary.value && html`<${Earned} summary=${summary.value} />`}
    <h2>Nodes</h2>
    <p class="quiet">Each square is a GPU: ■ leased, □ idle, ▨ draining, ✕ fenced.</p>
    ${nodes.value.map((node) => html`<${Node} key=${node.id} node=${node} />`)}
    <${NewNode} />
    <${Offers} />
    <${Reserve} />
  `;
}

const hours = (seconds) => (seconds / 3600).toFixed(1);

function Earned({ summary: { totals, data, from, to } }) {
  const share = totals.offered_gpu_seconds
    ? `${Math.round((100 * totals.leased_gpu_seconds) / totals.offered_gpu_seconds)} %`
    : "–";
  const idle = totals.idle_gpu_seconds;
  return html`<dl class="facts">
      <div><dt>Net, ${from.slice(0, 10)} to ${to.slice(0, 10)}</dt><dd class="big">${money(totals.net)}</dd></div>
      <div><dt>Leased of offered</dt><dd>${share}</dd></div>
      <div><dt>Per leased GPU·h</dt><dd>${money(totals.net_per_leased_gpu_hour)}</dd></div>
      <div><dt>Unsold GPU-hours: below your reserve</dt><dd>${hours(idle.below_reserve)}</dd></div>
      <div><dt>No trade · other</dt><dd>${hours(idle.no_trade)} · ${hours(idle.other)}</dd></div>
    </dl>
    <details>
      <summary>By day</summary>
      <table>
        <thead><tr><th scope="col">Day</th><th scope="col" class="number">Offered h</th><th scope="col" class="number">Leased h</th>
          <th scope="col" class="number">Paid</th><th scope="col" class="number">Fee</th><th scope="col" class="number">Net</th></tr></thead>
        <tbody>
          ${data.map(
            (row) => html`<tr key=${row.day}>
              <th scope="row">${row.day}</th><td class="number">${hours(row.offered_gpu_seconds)}</td>
              <td class="number">${hours(row.leased_gpu_seconds)}</td><td class="number">${money(row.revenue)}</td>
              <td class="number">${money(row.fee)}</td><td class="number">${money(row.net)}</td>
            </tr>`,
          )}
        </tbody>
      </table>
      <p><a href="/v1/owner/summary?format=csv" download="earnings.csv">CSV</a></p>
    </details>`;
}

// What each GPU of a node does, by its index.
function states(node, leases) {
  const tiles = Array(node.gpus).fill("idle");
  for (const lease of leases) {
    for (const index of lease.gpu_indices) tiles[index] = lease.notice ? "draining" : "leased";
  }
  for (const index of node.fenced_gpus) tiles[index] = "fenced";
  return tiles;
}

const SIGNS = { idle: "□", leased: "■", draining: "▨", fenced: "✕" };

function Node({ node }) {
  const [isAsking, setAsking] = useState(false);
  const leases = running.value.get(node.id) || [];
  const tiles = states(node, leases);
  const number = (state) => tiles.filter((tile) => tile === state).length;
  const label = Object.keys(SIGNS)
    .filter((state) => number(state))
    .map((state) => `${number(state)} ${state}`)
    .join(", ");
  const move = (action) => attempt(() => post(`/v1/nodes/${node.id}/${action}`, {})).then(() => attempt(load));
  return html`<section class="node">
    <h3>${node.name} <small>${node.market} · ${node.state}${node.health === "ok" ? "" : ` · ${node.health}`}</small></h3>
    <p class="tiles" role="img" aria-label=${label}>${tiles.map((tile) => html`<span class=${tile}>${SIGNS[tile]}</span>`)}</p>
    <p>
      <button onClick=${() => move(node.state === "cordoned" ? "uncordon" : "cordon")}>
        ${node.state === "cordoned" ? "Take new leases again" : "No new leases"}</button>${" "}
      <button onClick=${() => setAsking(true)}>Take it back…</button>
    </p>
    ${isAsking && html`<${Recall} node=${node} leases=${leases} close=${() => setAsking(false)} />`}
  </section>`;
}

// Who is hit, and what it costs, before anybody is told.
function Recall({ node, leases, close }) {
  const recall = () =>
    attempt(() => post(`/v1/nodes/${node.id}/recall`, {})).then(() => attempt(load)).then(close);
  const lost = leases.reduce((sum, lease) => sum + lease.gpus * Number(lease.price || 0), 0);
  return html`<div class="notice" role="group" aria-label="Take ${node.name} back">
    ${leases.length === 0
      ? html`<p>Nobody is on it. Its offers end.</p>`
      : html`<p>${leases.length} lease${leases.length === 1 ? "" : "s"} with ${gpus(leases.reduce((sum, one) => sum + one.gpus, 0))} get
          their notice, and you no longer earn about $${lost.toFixed(2)} an hour.</p>
        <ul>${leases.map((lease) => html`<li key=${lease.id}>${lease.id}: ${gpus(lease.gpus)} since ${clock(lease.started_at || lease.awarded_at)} UTC</li>`)}</ul>`}
    <p><button class="strong" onClick=${recall}>Take it back</button> <button onClick=${close}>Leave it</button></p>
  </div>`;
}

function NewNode() {
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

function Offers() {
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
  const live = offers.value.filter((offer) => offer.status !== "withdrawn" && offer.status !== "expired");
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
                <th scope="row">${nodes.value.find((node) => node.id === offer.node)?.name || offer.node}<small>${offer.market}</small></th>
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
        <label>Node <select name="node">${nodes.value.map((node) => html`<option key=${node.id} value=${node.id}>${node.name}</option>`)}</select></label>
        <label>GPUs <input name="gpus" type="number" min="1" max="1024" required defaultValue="8" /></label>
        <label>Reserve, $ per GPU·h <input name="reserve" inputmode="decimal" required pattern="\\d{1,6}(\\.\\d{1,6})?" /></label>
        <button>Offer them</button>
      </form>
    </details>`;
}
