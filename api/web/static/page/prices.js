// The clearing price over time, with the limits of one's own live bids as lines.

import { useEffect, useState } from "preact/hooks";
import { PriceChart } from "fallow/charts.js";
import { rows } from "fallow/client.js";
import { useFresh } from "fallow/fresh.js";
import { html } from "fallow/html.js";
import { saveCsv } from "fallow/sheet.js";
import { account, attempt, mayRead } from "fallow/store.js";
import { clock, count, gpus, money, price } from "fallow/words.js";

const INTERVALS = { "1m": "minute", "5m": "5 minutes", "1h": "hour", "1d": "day" };
const CANDLES = 200;
const REFRESH_MS = 15_000;
const LIVE = new Set(["open", "partial", "filled", "preempting", "paused"]);
const BIDS_MAX = 100;

export function Prices({ market }) {
  const [interval, setInterval] = useState("5m");
  const [candles, setCandles] = useState([]);
  const [limits, setLimits] = useState([]);
  const name = encodeURIComponent(market.id);
  useEffect(() => {
    let isCurrent = true;
    const load = () =>
      attempt(() => rows(`/v1/markets/${name}/candles?interval=${interval}&limit=100`, CANDLES)).then((found) => {
        if (isCurrent && found) setCandles(found.reverse());
      });
    load();
    const timer = globalThis.setInterval(load, REFRESH_MS);
    return () => {
      isCurrent = false;
      clearInterval(timer);
    };
  }, [market.id, interval]);
  const loadLimits = async () => {
    const bids = await rows(`/v1/bids?market=${name}&limit=100`, BIDS_MAX);
    setLimits(bids.filter((bid) => LIVE.has(bid.status)).map((bid) => [bid.limit_price_per_gpu_hour, bid.gpus]));
  };
  useFresh(mayRead("bids:read") ? loadLimits : null, `${account.value?.account} ${market.id}`);
  const own = mayRead("bids:read") ? limits : [];
  const last = candles.filter((candle) => candle.close !== null).at(-1);
  const words = last
    ? `Clearing price by ${INTERVALS[interval]}: ${price(last.close)} at the end; GPUs cleared below.`
    : "Nothing has traded in this time.";
  const lines = own.map(([limit, number]) => `${money(limit)} for ${gpus(number)}`).join(", ");
  return html`<section>
    <h2>Price</h2>
    <p role="group" aria-label="Interval">
      ${Object.keys(INTERVALS).map(
        (one) => html`<button key=${one} aria-pressed=${one === interval} onClick=${() => setInterval(one)}>${one}</button> `,
      )}
    </p>
    <${PriceChart} candles=${candles} limits=${own.map(([limit]) => Number(limit))}
      words=${lines ? `${words} Your limits, dotted where they fit: ${lines}.` : words} />
    <${Table} market=${market} interval=${interval} candles=${candles} />
  </section>`;
}

function Table({ market, interval, candles }) {
  const save = () =>
    saveCsv(
      `${market.id}-${interval}.csv`,
      ["start_at", "open", "high", "low", "close", "cleared_gpus", "offered_gpus", "preempted_gpus"],
      candles.map((one) => [one.start_at, one.open, one.high, one.low, one.close, one.cleared_gpus, one.offered_gpus, one.preempted_gpus]),
    );
  return html`<details>
    <summary>As a table</summary>
    <p><button onClick=${save}>Save as CSV</button></p>
    <div class="wide" tabindex="0" role="group" aria-label="Table of prices, scrolls sideways"><table>
      <thead><tr><th scope="col">From, UTC</th><th scope="col" class="number">Low</th><th scope="col" class="number">High</th>
        <th scope="col" class="number">Last</th><th scope="col" class="number">GPUs cleared</th></tr></thead>
      <tbody>
        ${candles.slice().reverse().map(
          (one) => html`<tr key=${one.start_at}>
            <th scope="row">${one.start_at.slice(0, 10)} ${clock(one.start_at).slice(0, 5)}</th>
            <td class="number">${price(one.low)}</td><td class="number">${price(one.high)}</td>
            <td class="number">${price(one.close)}</td><td class="number">${count(one.cleared_gpus)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
  </details>`;
}
