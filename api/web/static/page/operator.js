// Screen 7: is the market well? Its pulse, its switches, the lights of the books, who did what.

import { useEffect, useState } from "preact/hooks";
import { get, post, rows } from "fallow/client.js";
import { html } from "fallow/html.js";
import { attempt, markets, ticks } from "fallow/store.js";
import { ABSENT, cents, clock, count, money } from "fallow/words.js";

const REFRESH_MS = 2_000;
const BOOKS_MS = 60_000; // the server computes them once a minute
const LOG_ROWS = 50;

function useEvery(path, pause) {
  const [found, setFound] = useState(null);
  const load = () => attempt(() => get(path)).then((answer) => answer && setFound(answer));
  useEffect(() => {
    load();
    const timer = setInterval(load, pause);
    return () => clearInterval(timer);
  }, [path]);
  return [found, load];
}

export function Operator() {
  const [engine, again] = useEvery("/v1/operator/engine", REFRESH_MS);
  const [books] = useEvery("/v1/operator/reconciliation", BOOKS_MS);
  return html`
    <h1>Operator</h1>
    ${engine && html`<${Pulse} engine=${engine} again=${again} />`}
    <h2>The books</h2>
    ${books ? html`<${Books} books=${books} />` : html`<p class="quiet">Checking every invariant…</p>`}
    <${Replay} />
    <${Accounts} />
    <${Log} />
  `;
}

function Pulse({ engine, again }) {
  return html`<dl class="facts">
      <div><dt>Engine</dt><dd>${engine.ready ? "✓ answers" : "✕ not ready"}</dd></div>
      <div><dt>Commands</dt><dd>${count(engine.journal_seq)}</dd></div>
      <div><dt>Waiting</dt><dd>${count(engine.waiting_commands)}</dd></div>
      <div><dt>Sockets</dt><dd>${count(engine.sockets)}</dd></div>
      <div><dt>Fees earned</dt><dd title=${money(engine.fees)}>${cents(engine.fees)}</dd></div>
    </dl>
    <h2>How long a tick takes</h2>
    <${Phases} phases=${engine.phases} />
    <h2>Markets</h2>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
      <thead><tr><th scope="col">Market</th><th scope="col">State</th><th scope="col" class="number">Tick</th>
        <th scope="col" class="number">Late</th><th scope="col" class="number">Fee</th><td></td></tr></thead>
      <tbody>${engine.markets.map((pulse) => html`<${Switch} key=${pulse.market} pulse=${pulse} again=${again} />`)}</tbody>
    </table></div>`;
}

const PHASES = {
  late: "late: from due to begun",
  clear: "clear: deciding who wins, leases, notices, bills",
  commit: "commit: until it is durable",
  tell: "tell: handing it to everybody who listens",
};

function Phases({ phases }) {
  if (phases.length === 0) return html`<p class="quiet">No tick since the start.</p>`;
  const most = Math.max(...phases.map((one) => one.p99_ms), 0.001);
  const ms = (number) => `${number.toFixed(1)} ms`;
  return html`<div class="wide" tabindex="0" role="group" aria-label="Table of phases, scrolls sideways"><table>
    <caption>The last ${count(phases[0].ticks)} ticks, phase by phase</caption>
    <thead><tr><th scope="col">Phase</th><th scope="col" class="number">Last</th><th scope="col" class="number">Half below</th>
      <th scope="col" class="number">99 % below</th><th scope="col" class="number">Worst</th><td></td></tr></thead>
    <tbody>
      ${phases.map(
        (one) => html`<tr key=${one.phase}>
          <th scope="row">${PHASES[one.phase] || one.phase}</th><td class="number">${ms(one.last_ms)}</td>
          <td class="number">${ms(one.p50_ms)}</td><td class="number">${ms(one.p99_ms)}</td><td class="number">${ms(one.worst_ms)}</td>
          <td><svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">
            <rect class="idle" width=${((100 * one.p99_ms) / most).toFixed(1)} height="10" />
            <rect class="leased" width=${((100 * one.p50_ms) / most).toFixed(1)} height="10" /></svg></td>
        </tr>`,
      )}
    </tbody>
  </table></div>`;
}

function Switch({ pulse, again }) {
  const fee = markets.value.get(pulse.market)?.fee_bps;
  const isOpen = pulse.status === "open";
  const act = () => {
    if (isOpen) {
      const reason = prompt(`Why does ${pulse.market} stop? Everybody reads it.`);
      if (reason) attempt(() => post(`/v1/operator/markets/${pulse.market}/halt`, { reason })).then(again);
    } else {
      attempt(() => post(`/v1/operator/markets/${pulse.market}/resume`, {})).then(again);
    }
  };
  return html`<tr>
    <th scope="row"><a href="#/market/${pulse.market}">${pulse.market}</a></th>
    <td>${isOpen ? "✓ open" : `✕ ${pulse.status}`}</td>
    <td class="number">${count(pulse.tick)}</td>
    <td class="number">${pulse.late_seconds} s</td>
    <td class="number">${fee === undefined ? ABSENT : `${fee / 100} %`}</td>
    <td><button onClick=${act} aria-label="${isOpen ? "Halt" : "Resume"} ${pulse.market}">${isOpen ? "Halt" : "Resume"}</button></td>
  </tr>`;
}

function Books({ books }) {
  const broken = books.checks.filter((check) => !check.ok);
  return html`<p>${books.ok ? "✓" : "✕"} ${books.checks.length - broken.length} of ${books.checks.length} hold, at ${clock(books.checked_at)} UTC.</p>
    <details open=${!books.ok}>
      <summary>Every check</summary>
      <div class="wide" tabindex="0" role="group" aria-label="Table of checks, scrolls sideways"><table>
        <thead><tr><th scope="col">Check</th><th scope="col">Claim</th><th scope="col" class="number">Rows</th><th scope="col">Result</th></tr></thead>
        <tbody>
          ${books.checks.map(
            (check) => html`<tr key=${check.name}>
              <th scope="row">${check.name}</th><td>${check.claim}</td><td class="number">${count(check.checked)}</td>
              <td>${check.ok ? "✓ holds" : `✕ ${check.bad}: ${check.first_bad}`}</td>
            </tr>`,
          )}
        </tbody>
      </table></div>
    </details>`;
}

// Replay the journal to a tick and hold the two digests side by side.
function Replay() {
  const ids = [...markets.value.keys()];
  const [market, setMarket] = useState("");
  const [found, setFound] = useState(null);
  const [isBusy, setBusy] = useState(false);
  const chosen = market || ids[0];
  const newest = ticks.value.get(chosen)?.[0]?.tick;
  const run = async (event) => {
    event.preventDefault();
    setBusy(true);
    const tick = new FormData(event.target).get("tick");
    setFound((await attempt(() => post(`/v1/operator/ticks/${chosen}/${tick}/replay`, {}))) || null);
    setBusy(false);
  };
  return html`<section>
    <h2>Replay a tick</h2>
    <form onSubmit=${run}>
      <label>Market <select value=${chosen} onChange=${({ target }) => setMarket(target.value)}>
        ${ids.map((id) => html`<option key=${id}>${id}</option>`)}</select></label>
      <label>Tick <input name="tick" type="number" min="1" required defaultValue=${newest} /></label>
      <button disabled=${isBusy}>${isBusy ? "Replaying…" : "Replay"}</button>
    </form>
    ${found &&
    html`<p>${found.match ? "✓ The same" : `✕ Different: ${found.difference}`} after ${count(found.entries)} commands.</p>
      <p><code>${found.digest}</code> published<br /><code>${found.replayed_digest}</code> replayed</p>`}
  </section>`;
}

function Accounts() {
  const [found, setFound] = useState(null);
  useEffect(() => {
    attempt(() => rows(`/v1/operator/accounts?limit=${LOG_ROWS}`, LOG_ROWS)).then((known) => known && setFound(known));
  }, []);
  if (!found) return null;
  return html`<h2>Accounts</h2>
    <div class="wide" tabindex="0" role="group" aria-label="Table of accounts, scrolls sideways"><table>
      <caption>The newest ${count(found.length)}</caption>
      <thead><tr><th scope="col">Account</th><th scope="col">Roles</th><th scope="col">State</th><th scope="col">Since</th></tr></thead>
      <tbody>
        ${found.map(
          (one) => html`<tr key=${one.id}>
            <th scope="row">${one.name}<small>${one.id}</small></th><td>${one.roles.join(", ")}</td>
            <td>${one.state}</td><td>${one.created_at.slice(0, 10)}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>`;
}

function Log() {
  const [found, setFound] = useState(null);
  useEffect(() => {
    attempt(() => rows(`/v1/operator/audit-log?limit=${LOG_ROWS}`, LOG_ROWS)).then((log) => log && setFound(log));
  }, []);
  if (!found) return null;
  return html`<h2>Who did what</h2>
    <div class="wide" tabindex="0" role="group" aria-label="Table, scrolls sideways"><table>
      <thead><tr><th scope="col">UTC</th><th scope="col">Account</th><th scope="col">Request</th><th scope="col">Scope</th></tr></thead>
      <tbody>
        ${found.map(
          (row) => html`<tr key=${row.id}>
            <td>${row.at.slice(0, 10)} ${clock(row.at)}</td><td>${row.account}</td>
            <td>${row.method} ${row.path}</td><td>${row.scope}</td>
          </tr>`,
        )}
      </tbody>
    </table></div>`;
}
