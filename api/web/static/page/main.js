// The frame: where you are, whether the numbers are fresh, and the screen of the hash route.

import { render } from "preact";
import "@preact/signals";
import { Bids } from "fallow/bids.js";
import { useFresh } from "fallow/fresh.js";
import { html } from "fallow/html.js";
import { connect } from "fallow/live.js";
import { Market } from "fallow/market.js";
import { Markets } from "fallow/markets.js";
import { Money } from "fallow/money.js";
import { Operator } from "fallow/operator.js";
import { Owner } from "fallow/owner.js";
import { Settings } from "fallow/settings.js";
import { SignIn, signOut } from "fallow/sign_in.js";
import { account, balance, isStale, link, loadBalance, mayRead, place, time, trouble } from "fallow/store.js";
import { Ticket } from "fallow/ticket.js";
import { cents, clock } from "fallow/words.js";

addEventListener("hashchange", () => {
  place.value = location.hash.slice(1) || "/";
  scrollTo(0, 0);
});

function Screen() {
  const [path, query = ""] = place.value.split("?");
  const parts = path.split("/").filter(Boolean);
  if (parts.length === 0) return html`<${Markets} />`;
  if (parts[0] === "market" && parts[1]) return html`<${Market} key=${parts[1]} id=${parts[1]} />`;
  if (parts[0] === "bid" && parts[1]) return html`<${Ticket} key=${parts[1]} id=${parts[1]} />`;
  if (parts[0] === "bids") return html`<${Bids} />`;
  if (parts[0] === "money") {
    return html`<${Money} statement=${parts[1]} line=${parts[2] && decodeURIComponent(parts[2])} />`;
  }
  if (parts[0] === "owner") return html`<${Owner} />`;
  if (parts[0] === "operator") return html`<${Operator} />`;
  if (parts[0] === "settings" && account.value) return html`<${Settings} />`;
  if (parts[0] === "sign-in") return html`<${SignIn} token=${new URLSearchParams(query).get("token")} />`;
  return html`<h1>Nothing is here</h1><p><a href="#/">To the markets</a></p>`;
}

const SCREENS = [
  { path: "#/bids", name: "Bids and leases", scope: "bids:read" },
  { path: "#/money", name: "Money", scope: "billing:read" },
  { path: "#/owner", name: "Machines", scope: "supply:read" },
  { path: "#/operator", name: "Operator", scope: "operator:read" },
  { path: "#/settings", name: "Settings", scope: "keys:write" },
];

function Freshness() {
  const words = { connecting: "Connecting…", live: "Live", lost: "Connection lost: these numbers are old" };
  return html`<span class="link ${link.value}">${words[link.value]}</span>`;
}

function Available() {
  useFresh(mayRead("billing:read") ? loadBalance : null, account.value?.account);
  return balance.value && html`<span>${cents(balance.value.available)} available</span>`;
}

// Screens whose path begins as the place does are the one that is shown.
const isHere = (path) => (path === "#/" ? /^\/$|^\/(market|bid)\//.test(place.value) : `#${place.value}`.split("/")[1] === path.slice(2));

function Page() {
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      document.getElementById("main").focus();
    }}>To the content</a>
    <header>
      <a class="brand" href="#/">Fallow</a>
      <nav aria-label="Screens"><a href="#/" aria-current=${isHere("#/") ? "page" : null}>Markets</a>
        ${SCREENS.filter((one) => account.value?.scopes.includes(one.scope)).map(
          (one) => html`<a key=${one.path} href=${one.path} aria-current=${isHere(one.path) ? "page" : null}>${one.name}</a>`,
        )}
        <a href="/docs">API</a></nav>
      <span class="aside">
        <${Freshness} /> <time>${clock(time.value)} UTC</time>
        ${account.value
          ? html` <${Available} />
              <button onClick=${signOut}>Sign out</button>`
          : html` <a href="#/sign-in">Sign in</a>`}
      </span>
    </header>
    ${trouble.value && html`<p class="trouble" role="alert">${trouble.value}</p>`}
    <main id="main" tabindex="-1" class=${isStale.value ? "stale" : ""}><${Screen} /></main>
    <footer>
      <p>Fallow, the spot market for idle GPUs. Prices in US dollars per GPU-hour.${" "}
        <a href="/docs">HTTP API</a> · <a href="/docs/stream">Socket</a></p>
      <p><small>Price charts by TradingView Lightweight Charts™, © TradingView, Inc., Apache-2.0,${" "}
        <a href="https://www.tradingview.com/" rel="noreferrer">tradingview.com</a>.</small></p>
    </footer>
  `;
}

const app = document.getElementById("app");
app.replaceChildren(); // what was there until the modules came
render(html`<${Page} />`, app);
connect();
