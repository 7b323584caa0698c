// Screen 6: your machines. What each GPU does, what it earned, what stayed unsold, and taking it back.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { get, post, rows } from "fallow/client.js";
import { useFresh } from "fallow/fresh.js";
import { html } from "fallow/html.js";
import { NewNode, Offers } from "fallow/lend.js";
import { Reserve, Unsold } from "fallow/reserve.js";
import { account, attempt, mayRead } from "fallow/store.js";
import { cents, clock, gpus, money } from "fallow/words.js";

const NODES_MAX = 100;
const LEASES_MAX = 10_000;
const LEASES_MS = 2_000; // what leases on one's nodes do is told to their tenants: it is asked for
const SUMMARY_MS = 10_000;

const nodes = signal(null);
const offers = signal([]);
const running = signal(new Map()); // node: the leases on it, as a recall would hit them
const summary = signal(null);

async function load() {
  const [mine, posted] = await Promise.all([
    rows("/v1/nodes?limit=100", NODES_MAX), rows("/v1/offers?limit=100", NODES_MAX), loadLeases(),
  ]);
  [nodes.value, offers.value] = [mine, posted];
}

async function loadLeases() {
  const found = new Map();
  for (const lease of await rows("/v1/owner/leases", LEASES_MAX)) {
    found.set(lease.node, [...(found.get(lease.node) || []), lease]);
  }
  running.value = found;
}

async function loadSummary() {
  summary.value = await get("/v1/owner/summary?group_by=day&limit=100");
}

export function Owner() {
  const may = mayRead("supply:read");
  useFresh(may ? load : null, account.value?.account);
  useEffect(() => {
    if (!may) return undefined;
    attempt(loadSummary);
    const timers = [setInterval(() => attempt(loadLeases), LEASES_MS), setInterval(() => attempt(loadSummary), SUMMARY_MS)];
    return () => timers.forEach(clearInterval);
  }, [may, account.value?.account]);
  if (!may) return html`<h1>Your machines</h1><p><a href="#/sign-in">Sign in</a> as an owner to see yours.</p>`;
  if (nodes.value === null) return html`<h1>Your machines</h1><p class="quiet">Reading them…</p>`;
  return html`
    <h1>Your machines</h1>
    ${summary.value && html`<${Earned} summary=${summary.value} />`}
    <h2>Nodes</h2>
    <p class="quiet">Each square is a GPU: ■ leased, □ idle, ▨ draining, ✕ fenced.</p>
    <div class="nodes">${nodes.value.map((node) => html`<${Node} key=${node.id} node=${node} />`)}</div>
    <${NewNode} load=${load} />
    <${Offers} nodes=${nodes.value} offers=${offers.value} load=${load} />
    <${Unsold} ids=${[...new Set(offers.value.map((offer) => offer.market))].sort()} />
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
      <div><dt>Net, ${from.slice(0, 10)} to ${to.slice(0, 10)}</dt><dd class="big" title=${money(totals.net)}>${cents(totals.net)}</dd></div>
      <div><dt>Leased of offered</dt><dd>${share}</dd></div>
      <div><dt>Per leased GPU·h</dt><dd>${totals.net_per_leased_gpu_hour === null ? "–" : cents(totals.net_per_leased_gpu_hour)}</dd></div>
      <div><dt>Unsold GPU-hours: below your reserve</dt><dd>${hours(idle.below_reserve)}</dd></div>
      <div><dt>No trade · other</dt><dd>${hours(idle.no_trade)} · ${hours(idle.other)}</dd></div>
    </dl>
    <details>
      <summary>By day</summary>
      <div class="wide" tabindex="0" role="group" aria-label="Table by day, scrolls sideways"><table>
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
      </table></div>
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
    ${isAsking && html`<${Recall} node=${node} close=${() => setAsking(false)} />`}
  </section>`;
}

// Who is hit, and what it costs, before anybody is told.
function Recall({ node, close }) {
  const [leases, setLeases] = useState(null);
  useEffect(() => {
    attempt(() => post(`/v1/nodes/${node.id}/recall`, { preview: true })).then((hit) => (hit ? setLeases(hit.leases) : close()));
  }, [node.id]);
  if (leases === null) return html`<p class="quiet">Asking who is on it…</p>`;
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
