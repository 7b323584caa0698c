// Screen 2: one market. What a GPU costs, whether so many can be had, what happens to who is outbid.

import { useEffect, useState } from "preact/hooks";
import { Auction } from "fallow/auction.js";
import { get } from "fallow/client.js";
import { html } from "fallow/html.js";
import { Prices } from "fallow/prices.js";
import { saveCsv } from "fallow/sheet.js";
import { attempt, loadTicks, markets, secondsToTick, ticks } from "fallow/store.js";
import { clock, count, duration, gpus, money, percent, price, untilTick } from "fallow/words.js";

const TABLE_TICKS = 20;

export function Market({ id }) {
  const market = markets.value.get(id);
  useEffect(() => {
    attempt(() => loadTicks(id));
  }, [id]);
  if (!market) {
    return html`<h1>${id}</h1><p>${markets.value.size ? "There is no such market." : "Reading the market…"}</p>`;
  }
  const known = ticks.value.get(id) || [];
  return html`
    <p><a href="#/">Markets</a></p>
    <h1>${id}</h1>
    <p class="quiet">${market.gpu_model}, ${market.gpu_memory_gib} GiB · ${market.gpus_per_node} GPUs a node ·${" "}
      ${market.interconnect} · ${market.region}</p>
    <${Now} market=${market} tick=${known[0]} />
    <p><a class="action" href="#/bid/${id}">Place a bid</a></p>
    <div class="sides"><${Quote} market=${market} at=${known[0]?.tick} /><${Rules} market=${market} /></div>
    <${Auction} market=${market} known=${known} />
    <${Prices} market=${market} />
    <${Recent} market=${market} known=${known.slice(0, TABLE_TICKS)} />
  `;
}

function Now({ market, tick }) {
  const left = secondsToTick(market);
  return html`<dl class="facts">
    <div><dt>Price per GPU·h</dt><dd class="big">${price(tick ? tick.price : market.price)}</dd></div>
    <div><dt>Leased</dt><dd>${tick ? `${count(tick.cleared_gpus)} of ${count(tick.offered_gpus)}` : "…"}</dd></div>
    <div><dt>Demanded</dt><dd>${tick ? count(tick.demanded_gpus) : "…"}</dd></div>
    <div>
      <dt>Next tick</dt>
      <dd>${left > 0 ? "in " : ""}${untilTick(market, left)}${market.status_reason ? `: ${market.status_reason}` : ""}</dd>
    </div>
  </dl>`;
}

// "Would I get 8?": asked again at every tick.
function Quote({ market, at }) {
  const [wanted, setWanted] = useState(8);
  const [quote, setQuote] = useState(null);
  useEffect(() => {
    let isCurrent = true;
    attempt(() => get(`/v1/markets/${encodeURIComponent(market.id)}/quote?gpus=${wanted}`)).then((found) => {
      if (isCurrent && found) setQuote(found);
    });
    return () => {
      isCurrent = false;
    };
  }, [market.id, wanted, at]);
  const take = ({ target }) => {
    const number = Math.round(target.valueAsNumber);
    if (number >= 1 && number <= 10_000) setWanted(number);
  };
  return html`<section>
    <h2>Would you get them?</h2>
    <label>GPUs <input type="number" min="1" max="10000" value=${wanted} onInput=${take} /></label>
    ${quote && html`<p>${answerOf(quote)}</p>`}
    ${quote?.suggested_limits.length > 0 &&
    html`<table>
      <caption>Limits, and how often a lease with such a limit was outbid within an hour, judged on so many samples of this market's record</caption>
      <thead><tr><th scope="col">Limit</th><th scope="col" class="number">per GPU·h</th><th scope="col" class="number">outbid</th><th scope="col" class="number">samples</th></tr></thead>
      <tbody>
        ${quote.suggested_limits.map(
          (one) => html`<tr>
            <th scope="row">${one.label}</th>
            <td class="number">${money(one.limit)}</td>
            <td class="number">${percent(one.interruption_probability)}</td>
            <td class="number">${count(one.samples)}</td>
          </tr>`,
        )}
      </tbody>
    </table>`}
  </section>`;
}

function answerOf(quote) {
  if (quote.price_to_fill === null) {
    return `Not now: of ${gpus(quote.gpus)}, the next tick could give ${quote.available_gpus} at any limit.`;
  }
  return `Yes: a limit of ${money(quote.price_to_fill)} would win ${gpus(quote.gpus)} at the next tick. You pay the \
clearing price, which is the same for everybody and never above your limit.`;
}

function Recent({ market, known }) {
  const save = () =>
    saveCsv(
      `${market.id}-ticks.csv`,
      ["tick", "cleared_at", "price_usd_per_gpu_hour", "cleared_gpus", "offered_gpus", "demanded_gpus", "preempted_gpus"],
      (ticks.value.get(market.id) || []).map((tick) => [
        tick.tick, tick.cleared_at, tick.price, tick.cleared_gpus, tick.offered_gpus, tick.demanded_gpus, tick.preempted_gpus,
      ]),
    );
  return html`<section>
    <h2>Recent ticks</h2>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
      <thead><tr>
        <th scope="col" class="number">Tick</th><th scope="col">UTC</th><th scope="col" class="number">Price</th>
        <th scope="col" class="number">Cleared</th><th scope="col" class="number">Offered</th>
        <th scope="col" class="number">Demanded</th><th scope="col" class="number">Preempted</th>
      </tr></thead>
      <tbody>
        ${known.map(
          (tick) => html`<tr key=${tick.tick}>
            <th scope="row" class="number">${tick.tick}</th>
            <td>${clock(tick.cleared_at)}</td>
            <td class="number">${price(tick.price)}</td>
            <td class="number">${count(tick.cleared_gpus)}</td>
            <td class="number">${count(tick.offered_gpus)}</td>
            <td class="number">${count(tick.demanded_gpus)}</td>
            <td class="number">${count(tick.preempted_gpus)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <button onClick=${save}>Save as CSV</button>
  </section>`;
}

function Rules({ market }) {
  const handicap = market.handicap_bps / 100;
  return html`<section>
    <h2>What you pay, and what happens when you are outbid</h2>
    <ul>
      <li>Every ${duration(market.tick_seconds)} all bids and offers meet and clear at one price. Who wins pays that
        price, whatever the limit was.</li>
      <li>Outbid? You get ${duration(market.notice_seconds)} of notice, and your GPUs run on in that time. Raise your
        limit to the notice's “keep price” before it ends and the notice is withdrawn.</li>
      <li>A newcomer must beat who runs already by ${handicap} % to displace them.</li>
      <li>GPUs are billed by the second, and settled every ${duration(market.settlement_seconds)}.</li>
      <li>Prices go by ${money(market.price_increment)}, up to ${money(market.price_cap)} per GPU-hour.</li>
    </ul>
  </section>`;
}
