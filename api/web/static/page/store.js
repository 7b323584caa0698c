// What the page knows, once. Screens read signals; live.js and the loaders below write them.

import { computed, signal } from "@preact/signals";
import { get, rows } from "fallow/client.js";

export const TICKS_KEPT = 200; // of each market, newest first

export const place = signal(location.hash.slice(1) || "/"); // the hash route
export const link = signal("connecting"); // connecting, live or lost: whether numbers are fresh
export const time = signal(Date.now()); // the market's, ms
export const markets = signal(new Map()); // by id, as GET /v1/markets tells them
export const summaries = signal(null); // rows of GET /v1/markets/summary; null until they are here
export const ticks = signal(new Map()); // market: its latest ticks, newest first
export const curves = signal(new Map()); // market: the newest tick's curve
export const account = signal(null); // null: nobody is signed in
export const balance = signal(null); // of who is signed in and may see it
export const changes = signal(0); // counts events of the account: who shows its things reads them again
export const trouble = signal(null); // what went wrong last, in words

let clockAhead = 0; // ms: the market's clock less this machine's

export function setTime(instant) {
  clockAhead = Date.parse(instant) - Date.now();
  time.value = Date.now() + clockAhead;
}

setInterval(() => {
  time.value = Date.now() + clockAhead;
}, 250);

export const isStale = computed(() => link.value === "lost");

// When a market clears next, in seconds from now; null while it is halted, or nobody knows.
export function secondsToTick(market) {
  if (!market || market.status !== "open" || isStale.value) return null;
  return Math.max(0, (nextTickAt(market) - time.value) / 1000);
}

export function nextTickAt(market) {
  const newest = ticks.value.get(market.id)?.[0];
  const told = Date.parse(market.next_tick);
  return newest ? Math.max(told, Date.parse(newest.cleared_at) + market.tick_seconds * 1000) : told;
}

export function takeTick(message) {
  const kept = new Map(ticks.value);
  const before = kept.get(message.tick.market) || [];
  if (before[0]?.tick >= message.tick.tick) return;
  kept.set(message.tick.market, [message.tick, ...before].slice(0, TICKS_KEPT));
  ticks.value = kept;
  curves.value = new Map(curves.value).set(message.tick.market, message.curve);
}

export async function loadMarkets() {
  const [found, seen] = await Promise.all([rows("/v1/markets", 1000), rows("/v1/markets/summary", 1000)]);
  markets.value = new Map(found.map((market) => [market.id, market]));
  summaries.value = seen;
}

export async function loadTicks(market) {
  const found = await rows(`/v1/markets/${encodeURIComponent(market)}/ticks?limit=100`, 100);
  const newer = (ticks.value.get(market) || []).filter((tick) => tick.tick > (found[0]?.tick || 0));
  ticks.value = new Map(ticks.value).set(market, [...newer, ...found].slice(0, TICKS_KEPT));
}

// Who is signed in here, and what they may do.
export async function loadAccount() {
  const found = await get("/v1/sessions/current");
  account.value = found.account && found;
  if (!mayRead("billing:read")) balance.value = null;
}

export const mayRead = (scope) => Boolean(account.value?.scopes.includes(scope));

export async function loadBalance() {
  balance.value = await get("/v1/balance");
}

// Run a loader and say in words what went wrong.
export async function attempt(work) {
  try {
    const result = await work();
    trouble.value = null;
    return result;
  } catch (error) {
    trouble.value = error.message;
    return undefined;
  }
}
