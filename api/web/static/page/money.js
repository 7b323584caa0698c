// Screen 5: what there is, what it went for, and the transfers behind every figure.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { get, rows } from "fallow/client.js";
import { useFresh } from "fallow/fresh.js";
import { html } from "fallow/html.js";
import { account, attempt, balance, mayRead } from "fallow/store.js";
import { clock, count, money } from "fallow/words.js";

const GROUPS = { day: "by day", market: "by market", bid: "by bid", lease: "by lease" };
const GROUPS_MAX = 62;
const LABELLED_BIDS_MAX = 500; // whose labels are offered to group by
const TRANSFERS_MAX = 500;
const LINES = {
  deposit: "Deposits",
  charge: "GPU time",
  refund: "Refunds",
  adjustment: "Adjustments by the operator",
  payout_paid: "Payouts",
};

const statements = signal(null);

export function Money({ statement, line }) {
  useEffect(() => {
    if (mayRead("billing:read")) attempt(async () => (statements.value = await rows("/v1/statements", 120)));
  }, [account.value?.account]);
  if (!mayRead("billing:read")) return html`<h1>Money</h1><p><a href="#/sign-in">Sign in</a> to see yours.</p>`;
  if (line) return html`<${Line} statement=${statement} line=${line} />`;
  if (statement) return html`<${Statement} id=${statement} />`;
  return html`
    <h1>Money</h1>
    ${balance.value && html`<${Balance} shown=${balance.value} />`}
    <${Usage} />
    <h2>Statements</h2>
    ${statements.value === null
      ? html`<p class="quiet">Reading them…</p>`
      : html`<ul>
          ${statements.value.map(
            (one) => html`<li><a href="#/money/${one.id}">${one.id}</a> ${one.state}</li>`,
          )}
        </ul>`}
  `;
}

function Balance({ shown }) {
  const earns = Number(shown.earning) !== 0 || Number(shown.payable) !== 0;
  return html`<dl class="facts">
    <div><dt>Available</dt><dd class="big">${money(shown.available)}</dd></div>
    <div><dt>Held for live bids</dt><dd>${money(shown.held)}</dd></div>
    <div><dt>Metered, not yet booked</dt><dd>${money(shown.owed)}</dd></div>
    ${earns &&
    html`<div><dt>Earned</dt><dd>${money(shown.earning)}</dd></div>
      <div><dt>Being paid out</dt><dd>${money(shown.payable)}</dd></div>`}
  </dl>`;
}

// What GPU time cost, and how long it was.
function Usage() {
  const [group, setGroup] = useState("day");
  const [found, setFound] = useState(null);
  const [names, setNames] = useState([]); // of labels
  const [label, setLabel] = useState("");
  const wanted = group === "label" ? `group_by=label&label=${encodeURIComponent(label)}` : `group_by=${group}`;
  const load = async () => {
    const usage = await rows(`/v1/usage?${wanted}&limit=100`, GROUPS_MAX);
    setFound({ wanted, usage });
  };
  useFresh(load, `${account.value?.account} ${wanted}`);
  useEffect(() => {
    if (!mayRead("bids:read")) return;
    attempt(async () => {
      const bids = await rows("/v1/bids?limit=500", LABELLED_BIDS_MAX);
      setNames([...new Set(bids.flatMap((bid) => Object.keys(bid.labels)))].sort());
    });
  }, [account.value?.account]);
  const choose = (name, chosen = "") => {
    setGroup(name);
    setLabel(chosen);
  };
  return html`<section>
    <h2>What GPU time cost</h2>
    <p role="group" aria-label="Grouped">
      ${Object.entries(GROUPS).map(
        ([name, words]) =>
          html`<button key=${name} aria-pressed=${name === group} onClick=${() => choose(name)}>${words}</button> `,
      )}
      ${names.map(
        (name) =>
          html`<button key=${`label ${name}`} aria-pressed=${group === "label" && label === name} onClick=${() => choose("label", name)}>by label ${name}</button> `,
      )}
      <a href="/v1/usage?${wanted}&format=csv" download="usage.csv">CSV</a>
    </p>
    ${found?.wanted !== wanted
      ? html`<p class="quiet">Adding it up…</p>`
      : found.usage.length === 0
        ? html`<p class="quiet">Nothing has run yet.</p>`
        : html`<table>
            <thead><tr><th scope="col">${label || group}</th><th scope="col" class="number">GPU-hours</th><th scope="col" class="number">Cost</th></tr></thead>
            <tbody>
              ${found.usage.map(
                (row) => html`<tr key=${row.group}>
                  <th scope="row">${row.group || "without it"}</th>
                  <td class="number">${(row.gpu_seconds / 3600).toFixed(2)}</td>
                  <td class="number">${money(row.amount)}</td>
                </tr>`,
              )}
            </tbody>
          </table>`}
  </section>`;
}

function Statement({ id }) {
  const [shown, setShown] = useState(null);
  useEffect(() => {
    attempt(() => get(`/v1/statements/${id}`)).then((found) => found && setShown(found));
  }, [id]);
  if (!shown) return html`<h1>Statement ${id}</h1><p class="quiet">Reading it…</p>`;
  return html`
    <p><a href="#/money">Money</a></p>
    <h1>Statement ${id}</h1>
    <p class="quiet">${shown.state === "open" ? "The month is not over: it may still change." : "Final."}</p>
    <p><a href="/v1/statements/${id}?format=html">To print</a> ·${" "}
      <a href="/v1/statements/${id}?format=csv" download="statement-${id}.csv">CSV</a></p>
    ${shown.pockets.map(
      (pocket) => html`<table key=${pocket.name}>
        <caption>${pocket.name === "earnings" ? "Earnings" : "Money"}</caption>
        <tbody>
          <tr><th scope="row">Opening balance</th><td></td><td class="number">${money(pocket.opening)}</td></tr>
          ${pocket.lines.map(
            (one) => html`<tr key=${one.id}>
              <th scope="row">${LINES[one.kind] || one.kind}${one.market ? `, ${one.market}` : ""}</th>
              <td><a href="#/money/${id}/${encodeURIComponent(one.id)}">${count(one.transfers)} transfers</a></td>
              <td class="number">${money(one.amount)}</td>
            </tr>`,
          )}
          <tr><th scope="row">Closing balance</th><td></td><td class="number strong">${money(pocket.closing)}</td></tr>
        </tbody>
      </table>`,
    )}
  `;
}

// The transfers whose sum is one line of a statement.
function Line({ statement, line }) {
  const [found, setFound] = useState(null);
  useEffect(() => {
    const path = `/v1/statements/${statement}/lines/${encodeURIComponent(line)}?limit=100`;
    attempt(() => rows(path, TRANSFERS_MAX)).then((legs) => legs && setFound(legs));
  }, [statement, line]);
  return html`
    <p><a href="#/money/${statement}">Statement ${statement}</a></p>
    <h1>${line}</h1>
    ${found === null
      ? html`<p class="quiet">Reading the transfers…</p>`
      : html`<div class="wide" tabindex="0" role="group" aria-label="Table of transfers, scrolls sideways"><table>
          <thead><tr><th scope="col">Transfer</th><th scope="col">For</th><th scope="col">Booked, UTC</th><th scope="col" class="number">Amount</th></tr></thead>
          <tbody>
            ${found.map(
              (leg) => html`<tr key=${leg.transfer}>
                <th scope="row">${leg.code}<small>${leg.transfer}</small></th>
                <td>${leg.reference}</td>
                <td>${leg.created_at.slice(0, 10)} ${clock(leg.created_at)}</td>
                <td class="number">${money(leg.amount)}</td>
              </tr>`,
            )}
          </tbody>
        </table></div>`}
    ${found?.length === TRANSFERS_MAX && html`<p class="quiet">The newest ${TRANSFERS_MAX}.</p>`}
  `;
}
