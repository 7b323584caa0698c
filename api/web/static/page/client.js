// The HTTP API as promises. A refusal is a Problem with the server's code; a write carries a key, so that
// what is sent again happens once.

export class Problem extends Error {
  constructor(status, document) {
    super(document.detail || document.title || `status ${status}`);
    this.status = status;
    this.code = document.code || "no_problem";
    this.document = document;
  }
}

const SECONDS_MAX = 15;

async function ask(method, path, { body, headers = {}, key } = {}) {
  const sent = { Accept: "application/json", ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (method !== "GET") sent["Idempotency-Key"] = key || crypto.randomUUID();
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: sent,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      signal: AbortSignal.timeout(SECONDS_MAX * 1000),
    });
  } catch (error) {
    throw new Problem(0, { code: "unreachable", detail: `The market cannot be reached (${error.name}).` });
  }
  const text = await response.text();
  let answer = {};
  try {
    answer = text ? JSON.parse(text) : {};
  } catch {
    answer = { code: "no_problem", detail: `status ${response.status} without a document` };
  }
  if (!response.ok) throw new Problem(response.status, answer);
  return answer;
}

export const get = (path) => ask("GET", path);
export const post = (path, body, options) => ask("POST", path, { body, ...options });
export const patch = (path, body, options) => ask("PATCH", path, { body, ...options });
export const remove = (path, options) => ask("DELETE", path, options);

// The rows of a list, page by page, at most `max` of them.
export async function rows(path, max = 100) {
  const found = [];
  let cursor = null;
  do {
    const mark = path.includes("?") ? "&" : "?";
    const page = await get(path + (cursor ? `${mark}cursor=${encodeURIComponent(cursor)}` : ""));
    found.push(...page.data);
    cursor = page.next_cursor;
  } while (cursor && found.length < max);
  return found.slice(0, max);
}
