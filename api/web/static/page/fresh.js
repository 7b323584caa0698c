// Reading again what an account's events may have changed: soon after the first of a bunch, one read at a
// time, and at most one in REST_MS however many events come.

import { useEffect, useRef } from "preact/hooks";
import { attempt, changes } from "fallow/store.js";

const SETTLE_MS = 150; // events come in bunches
const REST_MS = 1_000;

function pacer(load) {
  let timer = null;
  let isDue = false;
  let isGone = false;
  const run = async () => {
    isDue = false;
    await attempt(load);
    timer = null;
    if (isDue && !isGone) timer = setTimeout(run, REST_MS);
  };
  return {
    ask() {
      isDue = true;
      timer ??= setTimeout(run, SETTLE_MS);
    },
    end() {
      isGone = true;
      clearTimeout(timer);
    },
  };
}

// Load at the beginning, after events, for another `key` at once; `load` is null while there is nothing to read.
export function useFresh(load, key) {
  const seen = changes.value;
  const pace = useRef(null);
  useEffect(() => {
    if (load === null) return undefined;
    const own = pacer(load);
    pace.current = own;
    own.ask();
    return () => {
      own.end();
      pace.current = null;
    };
  }, [key, load === null]);
  useEffect(() => pace.current?.ask(), [seen]);
}
