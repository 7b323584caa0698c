// The reserve calculator: what a GPU must earn, and what each reserve would have brought in this market.

import { useState } from "preact/hooks";
import { get, post } from "fallow/client.js";
import { html } from "fallow/html.js";
import { attempt, markets } from "fallow/store.js";
import { money } from "fallow/words.js";

const VERDICTS = {
  below_floor: "The market pays less than running it costs: leave it off.",
  covers_floor: "The market pays for running it, though not for having bought it.",
  covers_full_cost: "The market pays for all of it.",
};
const AMOUNT = "\\d{1,6}(\\.\\d{1,6})?";

export function Reserve() {
  const [found, setFound] = useState(null);
  const ask = async (event) => {
    event.preventDefault();
    const given = new FormData(event.target);
    const body = { market: given.get("market"), purchase_price_per_gpu: given.get("purchase") };
    if (given.get("age")) body.age_months = Number(given.get("age"));
    if (given.get("energy")) body.energy_price_per_kwh = given.get("energy");
    if (given.get("watts")) body.load_watts = Number(given.get("watts"));
    if (given.get("utilisation")) body.utilisation_bps = Number(given.get("utilisation")) * 100;
    const answer = await attempt(() => post("/v1/owner/reserve-calculator", body));
    if (answer) setFound(answer);
  };
  return html`<section>
    <h2>Which reserve?</h2>
    <form onSubmit=${ask}>
      <label>Market <select name="market">${[...markets.value.keys()].map((id) => html`<option key=${id}>${id}</option>`)}</select></label>
      <label>Bought for, $ a GPU <input name="purchase" inputmode="decimal" required pattern=${AMOUNT} /></label>
      <label>Age, months <input name="age" type="number" min="0" max="240" /></label>
      <label>Power under load, W <input name="watts" type="number" min="1" max="5000" /></label>
      <label>Electricity, $ per kWh <input name="energy" inputmode="decimal" pattern=${AMOUNT} /></label>
      <label>Hours leased, % <input name="utilisation" type="number" min="1" max="100" /></label>
      <button>Work it out</button>
    </form>
    ${found && html`<${Answer} found=${found} />`}
  </section>`;
}

function Answer({ found }) {
  return html`
    <dl class="facts">
      <div><dt>Ask for at least</dt><dd class="big">${money(found.recommended.reserve_price_per_gpu_hour)}</dd></div>
      <div><dt>The market's mean price</dt><dd>${money(found.market_price)}</dd></div>
      <div><dt>Short-run floor</dt><dd>${money(found.short_run_floor.net_per_gpu_hour)}</dd></div>
      <div><dt>Full cost</dt><dd>${money(found.full_cost.market_decay.net_per_gpu_hour)}</dd></div>
    </dl>
    ${found.verdict && html`<p>${VERDICTS[found.verdict]}</p>`}
    <details>
      <summary>How the floor is made up</summary>
      <div class="wide" tabindex="0" role="group" aria-label="Table of the parts, scrolls sideways"><table>
        <thead><tr><th scope="col">Part</th><th scope="col">Working</th><th scope="col" class="number">per GPU·h</th></tr></thead>
        <tbody>
          ${found.short_run_floor.terms.map(
            (term) => html`<tr key=${term.name}><th scope="row">${term.name}</th><td>${term.working}</td><td class="number">${money(term.per_gpu_hour)}</td></tr>`,
          )}
        </tbody>
      </table></div>
    </details>
    ${found.history && html`<${Ladder} history=${found.history} />`}
  `;
}

// Revenue by reserve, as bars beside their numbers.
function Ladder({ history }) {
  const best = Math.max(...history.ladder.map((rung) => Number(rung.net_per_offered_gpu_hour)), 0.000001);
  return html`<h3>What each reserve would have brought</h3>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
      <thead><tr><th scope="col" class="number">Reserve</th><th scope="col" class="number">Sold</th>
        <th scope="col" class="number">Net per offered GPU·h</th><td></td><th scope="col">Which is</th></tr></thead>
      <tbody>
        ${history.ladder.map((rung) => {
          const net = Number(rung.net_per_offered_gpu_hour);
          return html`<tr key=${rung.reserve_price_per_gpu_hour}>
            <th scope="row" class="number">${money(rung.reserve_price_per_gpu_hour)}</th>
            <td class="number">${(rung.sold_bps / 100).toFixed(1)} %</td>
            <td class="number">${money(rung.net_per_offered_gpu_hour)}</td>
            <td><svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect class="leased" width=${((100 * Math.max(0, net)) / best).toFixed(1)} height="10" /></svg></td>
            <td>${rung.names.join(", ")}</td>
          </tr>`;
        })}
      </tbody>
    </table></div>
    <p class="quiet">${history.note}</p>`;
}

// Hours that stayed unsold because the price was below one's reserve, and which reserve would have sold them.
export function Unsold({ ids }) {
  const [found, setFound] = useState(null);
  const ask = (id) => attempt(() => get(`/v1/owner/unsold?market=${encodeURIComponent(id)}`)).then((answer) => answer && setFound(answer));
  if (ids.length === 0) return null;
  return html`<section>
    <h2>What stayed unsold</h2>
    <p>Of the last 7 days: the hours in which the price was below your reserve, and what a lower one would have sold.</p>
    <p role="group" aria-label="Market">
      ${ids.map((id) => html`<button key=${id} aria-pressed=${found?.market === id} onClick=${() => ask(id)}>${id}</button> `)}
    </p>
    ${found && (found.rungs.length === 0 ? html`<p class="quiet">No live offer, or no record yet.</p>` : html`<${Rungs} found=${found} />`)}
  </section>`;
}

function Rungs({ found }) {
  // Of reserves that sell the same, the highest says it all.
  const shown = found.rungs.filter((rung, index) => rung.is_own || rung.sold_bps !== found.rungs[index + 1]?.sold_bps);
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table of reserves, scrolls sideways"><table>
      <caption>${found.market}: of ${found.hours} hours of record, for each GPU</caption>
      <thead><tr><th scope="col" class="number">You get at least</th><th scope="col" class="number">Sells from</th>
        <th scope="col" class="number">Sold</th><th scope="col" class="number">Unsold hours</th>
        <th scope="col" class="number">Net per offered GPU·h</th><th scope="col">Which is</th></tr></thead>
      <tbody>
        ${shown.map(
          (rung) => html`<tr key=${rung.reserve_price_per_gpu_hour}>
            <th scope="row" class="number">${money(rung.reserve_price_per_gpu_hour)}</th>
            <td class="number">${money(rung.gross_reserve_price_per_gpu_hour)}</td>
            <td class="number">${(rung.sold_bps / 100).toFixed(1)} %</td>
            <td class="number">${rung.unsold_hours_per_gpu}</td>
            <td class="number">${money(rung.net_per_offered_gpu_hour)}</td>
            <td>${rung.is_own ? "your reserve" : ""}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>
    <p class="quiet">${found.note}</p>`;
}
