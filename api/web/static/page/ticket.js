// Screen 3: a bid, before it is placed: what it takes to win, what it would get, what it can cost at most.

import { useEffect, useState } from "preact/hooks";
import { get, post } from "fallow/client.js";
import { html } from "fallow/html.js";
import { account, attempt, markets, place, ticks, time } from "fallow/store.js";
import { count, decimal, gpus, isAmount, micro, money, percent, price } from "fallow/words.js";

const ASK_AFTER_MS = 250; // of quiet typing
const GPUS_MAX = 10_000;
const CONFIRM = "/confirm_limit";

export function Ticket({ id }) {
  const market = markets.value.get(id);
  const [wanted, setWanted] = useState(1);
  const [limit, setLimit] = useState("");
  const [isWhole, setWhole] = useState(false);
  const [isMeant, setMeant] = useState(false);
  const [quote, setQuote] = useState(null);
  const [preview, setPreview] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const [key, setKey] = useState(() => crypto.randomUUID()); // one bid, however often it is sent
  const newest = ticks.value.get(id)?.[0]?.tick;
  const terms = { market: id, gpus: wanted, limit_price_per_gpu_hour: limit };
  if (isWhole) terms.min_gpus = wanted;
  if (isMeant) terms.confirm_limit = true;
  const isComplete = wanted >= 1 && isAmount(limit);

  useEffect(() => {
    let isCurrent = true;
    const minimum = isWhole ? `&min_gpus=${wanted}` : "";
    attempt(() => get(`/v1/markets/${encodeURIComponent(id)}/quote?gpus=${wanted}${minimum}`)).then((found) => {
      if (isCurrent && found) setQuote(found);
    });
    return () => {
      isCurrent = false;
    };
  }, [id, wanted, isWhole, newest]);

  useEffect(() => {
    if (!isComplete || !account.value) return undefined;
    const timer = setTimeout(async () => {
      try {
        setPreview(await post("/v1/bids/preview", { ...terms, confirm_limit: true }));
        setRefusal(null);
      } catch (problem) {
        setPreview(null);
        setRefusal(problem);
      }
    }, ASK_AFTER_MS);
    return () => clearTimeout(timer);
  }, [id, wanted, limit, isWhole, newest, account.value]);

  if (!market) return html`<h1>A bid</h1><p class="quiet">Reading the market…</p>`;
  const submit = async (event) => {
    event.preventDefault();
    try {
      await post("/v1/bids", terms, { key });
      setKey(crypto.randomUUID());
      place.value = location.hash = "/bids";
    } catch (problem) {
      setRefusal(problem);
      if (problem.status !== 0 && problem.status !== 503) setKey(crypto.randomUUID());
    }
  };
  return html`
    <p><a href="#/market/${id}">${id}</a></p>
    <h1>Bid for ${market.gpu_model} in ${market.region}</h1>
    <form onSubmit=${submit}>
      <label>GPUs <input type="number" min="1" max=${GPUS_MAX} required value=${wanted}
        onInput=${({ target }) => setWanted(Math.min(GPUS_MAX, Math.max(0, Math.round(target.valueAsNumber || 0))))} /></label>
      <label>Limit, $ per GPU·h <input inputmode="decimal" required value=${limit} pattern="\\d{1,6}(\\.\\d{1,6})?"
        onInput=${({ target }) => setLimit(target.value.trim())} /></label>
      <label class="check"><input type="checkbox" checked=${isWhole} onChange=${({ target }) => setWhole(target.checked)} />
        All of them or none</label>
      <${ToFill} quote=${quote} take=${(text) => setLimit(decimal(micro(text)).replace(/0{1,4}$/, ""))} />
      ${isComplete && html`<${Worst} wanted=${wanted} limit=${limit} preview=${preview} />`}
      ${refusal && html`<${Refused} problem=${refusal} isMeant=${isMeant} setMeant=${setMeant} />`}
      ${account.value
        ? html`<button disabled=${!isComplete}>Place the bid</button>`
        : html`<p><a href="#/sign-in">Sign in</a> to see what it would get and to place it.</p>`}
    </form>
    ${isComplete && html`<${Same} terms=${terms} />`}
  `;
}

function ToFill({ quote, take }) {
  if (!quote) return html`<p class="quiet">Asking the market…</p>`;
  const answer =
    quote.price_to_fill === null
      ? `Not enough GPUs: ${count(quote.available_gpus)} could be had at the next tick.`
      : `${gpus(quote.gpus)} would win now at ${money(quote.price_to_fill)}; the price is ${price(quote.clearing_price)}.`;
  return html`<p>${answer}</p>
    ${quote.suggested_limits.length > 0 &&
    html`<p class="choices" role="group" aria-label="Suggested limits">
      ${quote.suggested_limits.map(
        (one) => html`<button type="button" onClick=${() => take(one.limit)}>
          ${one.label}: ${money(one.limit)} <small>outbid within an hour: ${percent(one.interruption_probability)}, on ${count(one.samples)} samples</small>
        </button>${" "}`,
      )}
    </p>`}`;
}

function Worst({ wanted, limit, preview }) {
  const hour = micro(limit) * BigInt(wanted);
  const left = preview && Math.ceil((Date.parse(preview.cutoff_at) - time.value) / 1000);
  return html`<dl class="facts">
    <div><dt>At most an hour</dt><dd>${money(decimal(hour))}</dd></div>
    <div><dt>At most a day</dt><dd>${money(decimal(hour * 24n))}</dd></div>
    ${preview &&
    html`<div><dt>Would win now</dt><dd>${gpus(preview.fill_gpus)}${preview.price ? ` at ${money(preview.price)}` : ""}</dd></div>
      <div><dt>Held of your balance</dt><dd>${money(preview.hold)}</dd></div>
      <div><dt>In time for</dt><dd>tick ${preview.effective_tick}, ${left > 0 ? `${left} s` : "now"}</dd></div>`}
  </dl>`;
}

function Refused({ problem, isMeant, setMeant }) {
  const asks = problem.document.errors?.some((one) => one.pointer === CONFIRM);
  return html`<div class="trouble" role="alert">
    <p>${problem.message} <a href="/problems/${problem.code}">${problem.code}</a></p>
    ${asks &&
    html`<label class="check"><input type="checkbox" checked=${isMeant} onChange=${({ target }) => setMeant(target.checked)} />
      I mean this limit</label>`}
  </div>`;
}

// The same bid for a terminal and a program; `KEY` stands for a key of yours.
function Same({ terms }) {
  const python = Object.entries(terms)
    .filter(([name]) => name !== "market")
    .map(([name, value]) => `${name}=${typeof value === "string" ? `"${value}"` : value === true ? "True" : value}`);
  return html`<details>
    <summary>The same with curl and Python</summary>
    <pre tabindex="0" role="group" aria-label="With curl">curl -s -X POST ${location.origin}/v1/bids -H "Authorization: Bearer $KEY" \\
  -H "Content-Type: application/json" -d '${JSON.stringify(terms)}'</pre>
    <pre tabindex="0" role="group" aria-label="With Python">from fallow import Client

with Client("${location.origin}", key=KEY) as market:
    market.place_bid("${terms.market}", ${python.join(", ")})</pre>
  </details>`;
}
