// The auction's own demand and supply, tick by tick: the newest until the scrubber is moved.

import { signal } from "@preact/signals";
import { useEffect, useState } from "preact/hooks";
import { CurveChart } from "fallow/charts.js";
import { get } from "fallow/client.js";
import { html } from "fallow/html.js";
import { saveCsv } from "fallow/sheet.js";
import { attempt, curves } from "fallow/store.js";
import { count, money } from "fallow/words.js";

const PAST_CURVES_MAX = 200;

const past = signal(new Map()); // "market tick": its curve, as it was cleared

async function loadCurve(market, tick) {
  const key = `${market} ${tick}`;
  if (past.value.has(key)) return;
  const curve = await get(`/v1/markets/${encodeURIComponent(market)}/curve?tick=${tick}`);
  past.value = new Map([...past.value, [key, curve]].slice(-PAST_CURVES_MAX));
}

export function Auction({ market, known }) {
  const [chosen, setChosen] = useState(null);
  const newest = known[0]?.tick;
  const number = chosen ?? newest;
  useEffect(() => {
    if (chosen !== null) attempt(() => loadCurve(market.id, chosen));
  }, [market.id, chosen]);
  useEffect(() => {
    if (newest && !curves.value.has(market.id)) attempt(() => loadCurve(market.id, newest));
  }, [market.id, newest === undefined]);
  if (!newest) return html`<section><h2>The auction</h2><p class="quiet">No tick yet.</p></section>`;
  const tick = known.find((one) => one.tick === number);
  const live = chosen === null ? curves.value.get(market.id) : undefined;
  const curve = live || past.value.get(`${market.id} ${number}`);
  const oldest = known[known.length - 1].tick;
  const move = ({ target }) => setChosen(target.valueAsNumber >= newest ? null : target.valueAsNumber);
  return html`<section>
    <h2>The auction</h2>
    <p>Demand falls to the right (solid), supply rises (dashed). The dot is what the tick cleared: everybody to its
      left has GPUs, and all pay the price at its height.</p>
    ${curve ? html`<${CurveChart} curve=${curve} tick=${tick} />` : html`<p class="quiet">Reading tick ${number}…</p>`}
    <label class="scrubber">Tick ${number}${chosen === null ? " (newest)" : ""}
      <input type="range" min=${oldest} max=${newest} value=${number} onInput=${move} /></label>
    ${chosen !== null && html`<button onClick=${() => setChosen(null)}>Back to the newest</button>`}
    ${curve && html`<${CurveTable} curve=${curve} />`}
  </section>`;
}

function CurveTable({ curve }) {
  const side = (title, levels) => html`<table>
    <caption>${title}</caption>
    <thead><tr><th scope="col" class="number">per GPU·h</th><th scope="col" class="number">GPUs so far</th></tr></thead>
    <tbody>${levels.map(([level, total]) => html`<tr><td class="number">${money(level)}</td><td class="number">${count(total)}</td></tr>`)}</tbody>
  </table>`;
  const save = () =>
    saveCsv(`${curve.market}-${curve.tick}-curve.csv`, ["side", "price_usd_per_gpu_hour", "cumulative_gpus"], [
      ...curve.demand.map((level) => ["demand", ...level]),
      ...curve.supply.map((level) => ["supply", ...level]),
    ]);
  return html`<details>
    <summary>As a table</summary>
    <p><button onClick=${save}>Save as CSV</button></p>
    <div class="sides">${side("Demand", curve.demand)}${side("Supply", curve.supply)}</div>
  </details>`;
}

