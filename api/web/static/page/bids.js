// Screen 4: what you bid for, what runs, and what is about to be taken: with the seconds left and the limit
// that keeps it.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { patch, post, remove, rows } from "fallow/client.js";
import { html } from "fallow/html.js";
import { account, attempt, changes, time } from "fallow/store.js";
import { clock, decimal, duration, gpus, micro, money, price, signed } from "fallow/words.js";

const ROWS_MAX = 100;
const SETTLE_MS = 150; // events come in bunches

const bids = signal(null);
const leases = signal([]);
const notices = signal([]);

async function load() {
  const [placed, held, issued] = await Promise.all(
    ["/v1/bids?limit=100", "/v1/leases?limit=100", "/v1/notices?limit=100"].map((path) => rows(path, ROWS_MAX)),
  );
  [bids.value, leases.value, notices.value] = [placed, held, issued];
}

export function Bids() {
  const count = changes.value;
  useEffect(() => {
    if (!account.value) return undefined;
    const timer = setTimeout(() => attempt(load), SETTLE_MS);
    return () => clearTimeout(timer);
  }, [count, account.value?.account]);
  if (!account.value) return html`<h1>Bids and leases</h1><p><a href="#/sign-in">Sign in</a> to see yours.</p>`;
  if (bids.value === null) return html`<h1>Bids and leases</h1><p class="quiet">Reading them…</p>`;
  const live = notices.value.filter((notice) => notice.state === "issued" || notice.state === "acknowledged");
  return html`
    <h1>Bids and leases</h1>
    <div aria-live="assertive">${live.map((notice) => html`<${Notice} key=${notice.id} notice=${notice} />`)}</div>
    <h2>Leases</h2>
    <${Leases} rows=${leases.value} />
    <h2>Bids</h2>
    <${BidTable} rows=${bids.value} />
  `;
}

const REASONS = {
  outbid: "somebody bids more for them",
  offer_withdrawn: "their owner takes them back",
  moved: "your job fits better elsewhere",
  funds_exhausted: "your balance is used up",
  max_spend: "your bid's budget is used up",
  expired: "the bid's time is over",
  operator: "the operator ends them",
  test: "you asked for a test",
};

function Notice({ notice }) {
  const left = (Date.parse(notice.reclaim_at) - time.value) / 1000;
  const lease = leases.value.find((one) => one.id === notice.lease);
  const [isBusy, setBusy] = useState(false);
  const act = async (work) => {
    setBusy(true);
    await attempt(work);
    await attempt(load);
    setBusy(false);
  };
  const raise = () =>
    act(() => patch(`/v1/bids/${notice.bid}`, { limit_price_per_gpu_hour: notice.keep_price, confirm_limit: true }));
  const ready = () => act(() => post(`/v1/notices/${notice.id}/ack`, { ready: true }));
  return html`<section class="notice">
    <h2>${lease ? gpus(lease.gpus) : "A lease"} in ${notice.market}: ${REASONS[notice.reason] || notice.reason}</h2>
    <p class="countdown"><strong aria-hidden="true">${duration(left)}</strong>
      until they are reclaimed, at ${clock(notice.reclaim_at)} UTC.</p>
    <p>Your limit is ${money(notice.limit)}, the price ${price(notice.price)}.</p>
    <p>
      ${notice.keep_price !== null &&
      html`<button class="strong" disabled=${isBusy} onClick=${raise}>Raise to ${money(notice.keep_price)} to stay</button> `}
      <button disabled=${isBusy} onClick=${ready}>I am done: end it now</button>
    </p>
  </section>`;
}

function Leases({ rows: found }) {
  if (found.length === 0) return html`<p class="quiet">Nothing runs. A bid that wins shows its lease here.</p>`;
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
    <thead><tr>
      <th scope="col">Lease</th><th scope="col">State</th><th scope="col" class="number">GPUs</th>
      <th scope="col" class="number">Price</th><th scope="col" class="number">Cost so far</th>
      <th scope="col">How to reach it</th><th scope="col">Since</th>
    </tr></thead>
    <tbody>
      ${found.map(
        (lease) => html`<tr key=${lease.id}>
          <th scope="row">${lease.market}<small>${lease.id}</small></th>
          <td>${lease.state}${lease.end_reason ? `: ${lease.end_reason}` : ""}</td>
          <td class="number">${lease.gpus}</td>
          <td class="number">${price(lease.price)}</td>
          <td class="number">${money(lease.cost)}</td>
          <td>${Object.entries(lease.connect).map(([name, value]) => html`<code>${name} ${value}</code> `)}</td>
          <td>${clock(lease.started_at || lease.awarded_at)}</td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

function BidTable({ rows: found }) {
  if (found.length === 0) return html`<p>You have no bids. <a href="#/">Choose a market</a> and place one.</p>`;
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
    <thead><tr>
      <th scope="col">Bid</th><th scope="col">State</th><th scope="col" class="number">GPUs won</th>
      <th scope="col" class="number">Limit</th><th scope="col" class="number">Headroom</th>
      <th scope="col" class="number">Spent</th><th scope="col">What happened</th><td></td>
    </tr></thead>
    <tbody>${found.map((bid) => html`<${BidRow} key=${bid.id} bid=${bid} />`)}</tbody>
  </table></div>`;
}

const OVER = new Set(["cancelled", "expired", "exhausted"]);

function BidRow({ bid }) {
  const headroom =
    bid.current_price === null ? null : decimal(micro(bid.limit_price_per_gpu_hour) - micro(bid.current_price));
  const cancel = () => {
    if (confirm(`Cancel the bid in ${bid.market}? Its leases end too.`)) {
      attempt(() => remove(`/v1/bids/${bid.id}`)).then(() => attempt(load));
    }
  };
  return html`<tr>
    <th scope="row"><a href="#/market/${bid.market}">${bid.market}</a><small>${bid.id}</small></th>
    <td>${bid.status}${bid.reason ? `: ${bid.reason.code}` : ""}</td>
    <td class="number">${bid.filled_gpus} of ${bid.gpus}</td>
    <td class="number">${money(bid.limit_price_per_gpu_hour)}</td>
    <td class="number">${signed(headroom)}</td>
    <td class="number">${money(bid.spent)}</td>
    <td><${Timeline} bid=${bid} /></td>
    <td>${!OVER.has(bid.status) && html`<button onClick=${cancel} aria-label="Cancel the bid ${bid.id}">Cancel</button>`}</td>
  </tr>`;
}

function Timeline({ bid }) {
  const [events, setEvents] = useState(null);
  const open = ({ target }) => {
    if (target.open) attempt(() => rows(`/v1/bids/${bid.id}/events?limit=100`, ROWS_MAX)).then((found) => found && setEvents(found));
  };
  return html`<details onToggle=${open}>
    <summary>Timeline</summary>
    ${events === null
      ? html`<p class="quiet">Reading…</p>`
      : html`<ol>${events.map((event) => html`<li>${clock(event.at)} ${event.type}${event.tick === null ? "" : `, tick ${event.tick}`}</li>`)}</ol>`}
  </details>`;
}
