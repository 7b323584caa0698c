// How numbers are written. Money comes as decimal strings and is only turned into a number to be drawn.

export const ABSENT = "–";

// "2.400000" is $2.40, "0.012500" is $0.0125: two places, more where they say something.
export function money(text) {
  if (text === null || text === undefined) return ABSENT;
  const sign = text.startsWith("-") ? "−" : "";
  const [whole, places = ""] = text.replace("-", "").split(".");
  const kept = places.replace(/0+$/, "").padEnd(2, "0");
  return `${sign}$${whole.replace(/\B(?=(\d{3})+$)/g, ",")}.${kept}`;
}

// An amount at a glance: whole cents, rounded down, unless it is less than a dollar.
export function cents(text) {
  const [whole, places = ""] = text.split(".");
  return /^-?0$/.test(whole) ? money(text) : money(`${whole}.${places.slice(0, 2)}`);
}

// Decimal strings to millionths and back: sums and multiples without a float.
export function micro(text) {
  const [whole, places = ""] = text.replace("-", "").split(".");
  const value = BigInt(whole || "0") * 1_000_000n + BigInt(places.padEnd(6, "0").slice(0, 6));
  return text.startsWith("-") ? -value : value;
}

export function decimal(millionths) {
  const size = millionths < 0n ? -millionths : millionths;
  const places = String(size % 1_000_000n).padStart(6, "0");
  return `${millionths < 0n ? "-" : ""}${size / 1_000_000n}.${places}`;
}

export const isAmount = (text) => /^\d{1,6}(\.\d{1,6})?$/.test(text);

export const price = (text) => (text === null || text === undefined ? "no price" : money(text));

export function signed(text) {
  if (text === null || text === undefined) return ABSENT;
  if (Number(text) === 0) return "±$0.00";
  return text.startsWith("-") ? money(text) : `+${money(text)}`;
}

export const count = (number) => number.toLocaleString("en-US");
export const gpus = (number) => `${count(number)} GPU${number === 1 ? "" : "s"}`;

export function duration(seconds) {
  const left = Math.max(0, Math.round(seconds));
  if (left < 60) return `${left} s`;
  if (left < 3600) return `${Math.floor(left / 60)} min ${left % 60 ? `${left % 60} s` : ""}`.trim();
  const minutes = Math.floor((left % 3600) / 60);
  return `${Math.floor(left / 3600)} h${minutes ? ` ${minutes} min` : ""}`;
}

// When a market clears next, in words: `left` as store.js counts it.
export function untilTick(market, left) {
  if (left === null) return market && market.status !== "open" ? market.status : ABSENT;
  return left > 0 ? `${Math.ceil(left)} s` : "now";
}

export const clock = (instant) =>
  new Date(instant).toLocaleTimeString("en-GB", { hour12: false, timeZone: "UTC" });

export const percent = (share) => `${(Number(share) * 100).toFixed(Number(share) < 0.1 ? 1 : 0)} %`;
