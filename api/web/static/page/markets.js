// Screen 1: a row per market, and prices by region and GPU model.

import { signal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { CapacityBar, Sparkline } from "fallow/charts.js";
import { rows } from "fallow/client.js";
import { html } from "fallow/html.js";
import { attempt, loadMarkets, markets, secondsToTick, summaries, ticks } from "fallow/store.js";
import { count, gpus, money, price, signed, untilTick } from "fallow/words.js";

const REFRESH_MS = 30_000; // of what ticks do not tell: the day's change, the preemptions of an hour
const HOURS = 24;
const HEAT_CLASSES = 5;

const days = signal(new Map()); // market: closing prices of the last 24 hours, oldest first

async function loadDays() {
  const known = [...markets.value.keys()].slice(0, 60);
  const read = async (id) => {
    const candles = await rows(`/v1/markets/${encodeURIComponent(id)}/candles?interval=1h&limit=${HOURS}`, HOURS);
    return [id, candles.reverse().map((candle) => (candle.close === null ? null : Number(candle.close)))];
  };
  days.value = new Map(await Promise.all(known.map(read)));
}

export function Markets() {
  useEffect(() => {
    const load = () => attempt(loadMarkets).then(() => attempt(loadDays));
    load();
    const timer = setInterval(load, REFRESH_MS);
    return () => clearInterval(timer);
  }, []);
  if (summaries.value === null) return html`<p class="quiet">Reading the markets…</p>`;
  if (summaries.value.length === 0) return html`<p>No market is open here yet.</p>`;
  return html`
    <h1>Markets</h1>
    <p class="lead">What an idle GPU costs an hour, right now. Each market clears at one price for everybody.</p>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways">
      <table class="markets">
        <thead>
          <tr>
            <th scope="col">Market</th>
            <th scope="col" class="number">Price per GPU·h</th>
            <th scope="col" class="number">24 h</th>
            <th scope="col">Last 24 hours</th>
            <th scope="col">Leased · idle · demanded</th>
            <th scope="col" class="number">Next tick</th>
            <th scope="col" class="number">Preempted, 1 h</th>
          </tr>
        </thead>
        <tbody>
          ${summaries.value.map((row) => html`<${Row} key=${row.market} row=${row} />`)}
        </tbody>
      </table>
    </div>
    <${Heat} rows=${summaries.value} />
  `;
}

// What the newest tick says replaces what the summary said.
function newest(row) {
  const tick = ticks.value.get(row.market)?.[0];
  if (!tick || tick.tick <= row.tick) return row;
  return {
    ...row,
    price: tick.price,
    leased_gpus: tick.cleared_gpus,
    idle_gpus: tick.offered_gpus - tick.cleared_gpus,
    offered_gpus: tick.offered_gpus,
    demanded_gpus: tick.demanded_gpus,
  };
}

function Row({ row }) {
  const shown = newest(row);
  const left = secondsToTick(markets.value.get(row.market));
  const prices = days.value.get(row.market) || [];
  return html`<tr>
    <th scope="row">
      <a href="#/market/${row.market}">${row.market}</a>
      <small>${row.gpu_model} · ${row.region}${row.status === "open" ? "" : ` · ${row.status}`}</small>
    </th>
    <td class="number strong">${price(shown.price)}</td>
    <td class="number">${signed(row.day_change)}</td>
    <td><${Sparkline} values=${prices} label="${row.market}: ${money(row.day_low)} to ${money(row.day_high)}" /></td>
    <td>
      <${CapacityBar} leased=${shown.leased_gpus} idle=${shown.idle_gpus} demanded=${shown.demanded_gpus} />
      <small>${count(shown.leased_gpus)} · ${count(shown.idle_gpus)} · ${count(shown.demanded_gpus)}</small>
    </td>
    <td class="number">${untilTick(markets.value.get(row.market) || row, left)}</td>
    <td class="number">${count(row.preempted_gpus_last_hour)}</td>
  </tr>`;
}

// The cheapest market of each region and model; the shade says how dear it is for its model.
function Heat({ rows: found }) {
  const models = [...new Set(found.map((row) => row.gpu_model))].sort();
  const regions = [...new Set(found.map((row) => row.region))].sort();
  const cheapest = (model, region) =>
    found
      .filter((row) => row.gpu_model === model && row.region === region)
      .map(newest)
      .sort((a, b) => (a.price === null) - (b.price === null) || Number(a.price) - Number(b.price))[0];
  return html`
    <h2>By region and GPU</h2>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways">
      <table class="heat">
        <thead>
          <tr>
            <th scope="col">GPU</th>
            ${regions.map((region) => html`<th scope="col" class="number">${region}</th>`)}
          </tr>
        </thead>
        <tbody>
          ${models.map((model) => {
            const cells = regions.map((region) => cheapest(model, region));
            const known = cells.filter((row) => row && row.price !== null).map((row) => Number(row.price));
            return html`<tr>
              <th scope="row">${model}</th>
              ${cells.map((row) => html`<${HeatCell} row=${row} known=${known} />`)}
            </tr>`;
          })}
        </tbody>
      </table>
    </div>
    <p class="quiet">Darker is dearer among the regions that have this GPU; a dash has no market.</p>
  `;
}

function HeatCell({ row, known }) {
  if (!row) return html`<td class="number quiet">–</td>`;
  if (row.price === null) return html`<td class="number"><a href="#/market/${row.market}">no price</a></td>`;
  const below = known.filter((value) => value < Number(row.price)).length;
  const shade = known.length < 2 ? 1 : 1 + Math.round((below / (known.length - 1)) * (HEAT_CLASSES - 1));
  const title = `${row.market}: ${price(row.price)}, ${gpus(row.idle_gpus)} idle`;
  return html`<td class="number heat-${shade}"><a href="#/market/${row.market}" title=${title}>${price(row.price)}</a></td>`;
}
