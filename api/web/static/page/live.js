// The socket: ticks of every market, and the events of whoever is signed in. What is lost is connected again,
// after a growing pause, and everything that may have changed meanwhile is read anew; until then the page says
// that its numbers are old.

import { post } from "fallow/client.js";
import {
  account, attempt, changes, link, loadAccount, loadMarkets, markets, nextTickAt, setTime, takeTick, ticks, time, trouble,
} from "fallow/store.js";

const PAUSE_MS_MAX = 10_000;
const SILENCES_MAX = 2.5; // heartbeats
const SILENCE_MS_MIN = 3_000;
const OVERDUE_MS = 1_500;
const ASK_AGAIN_MS = 3_000;

let attempts = 0;
let watchdog = 0;
let askedAt = 0;
let socket = null;
let isMeant = false; // the next close is ours

// Begin again as whoever is signed in now.
export function reconnect() {
  isMeant = socket !== null;
  socket?.close();
}

export function connect() {
  isMeant = false;
  socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/v1/ws`);
  const opened = socket;
  const send = (message) => {
    if (opened.readyState === WebSocket.OPEN) opened.send(JSON.stringify(message));
  };
  let silence = 30_000;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => opened.close(), silence);
  };
  socket.onmessage = ({ data }) => {
    heard();
    const message = JSON.parse(data);
    if (message.type === "hello") {
      silence = Math.max(SILENCE_MS_MIN, message.heartbeat_seconds * 1000 * SILENCES_MAX);
      setTime(message.time);
      begin(opened, send);
    } else if (message.type === "ack") {
      if (message.id === "all") resume();
    } else if (message.type === "heartbeat") {
      setTime(message.time);
    } else if (message.type === "tick") {
      takeTick(message);
    } else if (message.type === "error") {
      trouble.value = message.detail;
    } else if (message.channel === "account") {
      changes.value += 1;
    }
  };
  socket.onclose = () => {
    clearTimeout(watchdog);
    if (isMeant) {
      isMeant = false;
      link.value = "connecting";
      connect();
      return;
    }
    link.value = "lost";
    const pause = Math.min(PAUSE_MS_MAX, 250 * 2 ** Math.min(attempts, 10));
    attempts += 1;
    setTimeout(connect, pause * (0.5 + Math.random() / 2));
  };
  heard();
}

// A market that is overdue may have been halted, which no tick tells; one that ticks again has been resumed.
setInterval(() => {
  if (link.value !== "live" || Date.now() - askedAt < ASK_AGAIN_MS) return;
  const isOdd = [...markets.value.values()].some((market) => {
    const newest = ticks.value.get(market.id)?.[0];
    if (market.status !== "open") return newest?.tick > market.tick;
    return time.value - nextTickAt(market) > OVERDUE_MS;
  });
  if (!isOdd) return;
  askedAt = Date.now();
  attempt(loadMarkets);
}, 500);

async function begin(opened, send) {
  const channels = ["markets"];
  try {
    await loadAccount();
    if (account.value?.scopes.some((scope) => ["bids:read", "bids:write", "supply:read"].includes(scope))) {
      send({ type: "auth", ticket: (await post("/v1/ws-tickets", {})).ticket, id: "auth" });
      channels.push("account");
    }
    send({ type: "subscribe", channels, id: "all" });
  } catch (error) {
    trouble.value = error.message;
    opened.close();
  }
}

async function resume() {
  try {
    await loadMarkets();
    changes.value += 1; // what happened while nobody listened
    attempts = 0;
    link.value = "live";
  } catch (error) {
    trouble.value = error.message;
    link.value = "lost";
  }
}
