// Screen 4: what you bid for, what runs, and what is about to be taken: with the seconds left and the limit
// that keeps it.

import { signal } from "@preact/signals";
import { useState } from "preact/hooks";
import { get, patch, post, remove, rows } from "fallow/client.js";
import { useFresh } from "fallow/fresh.js";
import { html } from "fallow/html.js";
import { account, attempt, time } from "fallow/store.js";
import { ABSENT, clock, decimal, duration, gpus, micro, money, price, signed } from "fallow/words.js";

const ROWS_MAX = 100;

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
  useFresh(account.value ? load : null, account.value?.account);
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
    act(() =>
      patch(`/v1/bids/${notice.bid}`, {
        limit_price_per_gpu_hour: notice.keep_price,
        market: notice.market, // a bid with alternatives has a limit in each
        confirm_limit: true,
      }),
    );
  const seen = () => act(() => post(`/v1/notices/${notice.id}/ack`, {}));
  const ready = () => act(() => post(`/v1/notices/${notice.id}/ack`, { ready: true }));
  return html`<section class="notice">
    <h2>${lease ? gpus(lease.gpus) : "A lease"} in ${notice.market}: ${REASONS[notice.reason] || notice.reason}</h2>
    <p class="countdown"><strong aria-hidden="true">${duration(left)}</strong>${" "}
      until they are reclaimed, at ${clock(notice.reclaim_at)} UTC.</p>
    <p>Your limit is ${money(notice.limit)}; the tick cleared at ${price(notice.price)}.${" "}
      ${notice.keep_price !== null && `A limit of ${money(notice.keep_price)} keeps them, and you would pay only the clearing price.`}</p>
    <p>
      ${notice.keep_price !== null &&
      html`<button class="strong" disabled=${isBusy} onClick=${raise}>Raise to ${money(notice.keep_price)} to stay</button> `}
      <button disabled=${isBusy} onClick=${ready}>I am done: end it and its bill now</button>${" "}
      ${notice.state === "issued"
        ? html`<button disabled=${isBusy} onClick=${seen}>Acknowledge: I have seen it</button>`
        : html`<span>✓ acknowledged</span>`}
    </p>
  </section>`;
}

function Leases({ rows: found }) {
  if (found.length === 0) return html`<p class="quiet">Nothing runs. A bid that wins shows its lease here.</p>`;
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table of leases, scrolls sideways"><table class="cards">
    <thead><tr>
      <th scope="col">Lease</th><th scope="col">State</th><th scope="col" class="number">GPUs</th>
      <th scope="col" class="number">Price</th><th scope="col" class="number">Cost so far</th>
      <th scope="col">How to reach it</th><th scope="col">Since</th>
    </tr></thead>
    <tbody>
      ${found.map(
        (lease) => html`<tr key=${lease.id}>
          <th scope="row">${lease.market}<small>${lease.id}</small></th>
          <td data-label="State">${lease.state}${lease.end_reason ? `: ${REASONS[lease.end_reason] || lease.end_reason}` : ""}<${Kept} lease=${lease} /></td>
          <td class="number" data-label="GPUs">${lease.gpus}</td>
          <td class="number" data-label="Price">${lease.price === null ? ABSENT : money(lease.price)}</td>
          <td class="number" data-label="Cost so far">${money(lease.cost)}</td>
          <td data-label="How to reach it">${Object.entries(lease.connect).map(([name, value]) => html`<code>${name} ${value}</code> `)}</td>
          <td data-label="Since">${clock(lease.started_at || lease.awarded_at)}</td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

// What would have kept a lease that was outbid.
function Kept({ lease }) {
  const told = notices.value.find((notice) => notice.lease === lease.id && notice.keep_price !== null);
  if (lease.state !== "ended" || lease.end_reason !== "outbid" || !told) return null;
  return html`<small>A limit of ${money(told.keep_price)} in place of ${money(told.limit)} would have kept it running.</small>`;
}

function BidTable({ rows: found }) {
  if (found.length === 0) return html`<p>You have no bids. <a href="#/">Choose a market</a> and place one.</p>`;
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table of bids, scrolls sideways"><table class="cards">
    <thead><tr>
      <th scope="col">Bid</th><th scope="col">State</th><th scope="col" class="number">GPUs won</th>
      <th scope="col" class="number">Limit</th><th scope="col" class="number">Headroom</th>
      <th scope="col" class="number">Spent</th><th scope="col">What happened</th><td></td>
    </tr></thead>
    <tbody>${found.map((bid) => html`<${BidRow} key=${bid.id} bid=${bid} />`)}</tbody>
  </table></div>`;
}

const WHY_NOT = {
  outbid: "others bid more",
  protected: "who runs already is not displaced by so little",
  no_fit: "no machine has so many GPUs free together",
  engine_error: "the market failed on it: our fault, its hold is back",
};
const OVER = new Set(["cancelled", "expired", "exhausted", "rejected"]);

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
    <td data-label="State">${bid.status}${bid.reason ? `: ${WHY_NOT[bid.reason.code] || bid.reason.code}` : ""}</td>
    <td class="number" data-label="GPUs won">${bid.filled_gpus} of ${bid.gpus}</td>
    <td class="number" data-label="Limit">${money(bid.limit_price_per_gpu_hour)}</td>
    <td class="number" data-label="Headroom">${signed(headroom)}</td>
    <td class="number" data-label="Spent">${money(bid.spent)}</td>
    <td><${Timeline} bid=${bid} /></td>
    <td>${!OVER.has(bid.status) && html`<button onClick=${cancel} aria-label="Cancel the bid ${bid.id}">Cancel</button>`}</td>
  </tr>`;
}

// What happened to a bid, tick by tick, and what would win it now.
function Timeline({ bid }) {
  const [found, setFound] = useState(null);
  const read = async () => {
    const [events, shown] = await Promise.all([rows(`/v1/bids/${bid.id}/events?limit=100`, ROWS_MAX), get(`/v1/bids/${bid.id}`)]);
    setFound({ events, reason: OVER.has(shown.status) ? null : shown.reason });
  };
  return html`<details onToggle=${({ target }) => target.open && attempt(read)}>
    <summary>Timeline</summary>
    ${found === null
      ? html`<p class="quiet">Reading…</p>`
      : html`${found.reason && html`<p>${whyNot(found.reason)}</p>`}
          <ol>${found.events.map((event) => html`<li key=${event.seq}>${clock(event.at)} ${happened(event)}</li>`)}</ol>`}
  </details>`;
}

function whyNot({ code, price: met, winning_price: winning }) {
  const why = `${WHY_NOT[code] || code}${met === null ? "" : `; the price was ${money(met)}`}`;
  return winning === null ? `Now: ${why}.` : `Now: ${why}. A limit of ${money(winning)} would win all of them.`;
}

function happened({ type, tick, data }) {
  const words = [type.replace(".", " ") + (tick === null ? "" : `, tick ${tick}`)];
  if (data.limit_price_per_gpu_hour) words.push(`${gpus(data.gpus)} at a limit of ${money(data.limit_price_per_gpu_hour)}`);
  if (data.reason?.price) words.push(`the price was ${money(data.reason.price)}`);
  return words.join("; ");
}
