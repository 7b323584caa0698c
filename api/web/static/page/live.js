// The socket: ticks of every market. What is lost is connected again, after a growing pause, and everything
// that may have changed meanwhile is read anew; until then the page says that its numbers are old.

import { link, loadMarkets, setTime, takeTick, trouble } from "fallow/store.js";

const PAUSE_MS_MAX = 10_000;
const SILENCES_MAX = 2.5; // heartbeats

let attempts = 0;
let watchdog = 0;

export function connect() {
  const socket = new WebSocket(`${location.protocol.replace("http", "ws")}//${location.host}/v1/ws`);
  let silence = 30_000;
  const heard = () => {
    clearTimeout(watchdog);
    watchdog = setTimeout(() => socket.close(), silence);
  };
  socket.onmessage = ({ data }) => {
    heard();
    const message = JSON.parse(data);
    if (message.type === "hello") {
      silence = message.heartbeat_seconds * 1000 * SILENCES_MAX;
      setTime(message.time);
      socket.send(JSON.stringify({ type: "subscribe", channels: ["markets"], id: 1 }));
    } else if (message.type === "ack") {
      resume();
    } else if (message.type === "heartbeat") {
      setTime(message.time);
    } else if (message.type === "tick") {
      takeTick(message);
    } else if (message.type === "error") {
      trouble.value = message.detail;
    }
  };
  socket.onclose = () => {
    clearTimeout(watchdog);
    link.value = "lost";
    const pause = Math.min(PAUSE_MS_MAX, 250 * 2 ** Math.min(attempts, 10));
    attempts += 1;
    setTimeout(connect, pause * (0.5 + Math.random() / 2));
  };
  heard();
}

async function resume() {
  try {
    await loadMarkets();
    attempts = 0;
    link.value = "live";
  } catch (error) {
    trouble.value = error.message;
    link.value = "lost";
  }
}
