// The gateway's API. Every failure is a Problem; the key lives as long as this tab does.

const KEY = "selftaught.key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (secret) => sessionStorage.setItem(KEY, secret),
  forget: () => sessionStorage.removeItem(KEY),
};

// What the gateway said is wrong (RFC 9457): status, code, title, detail, param, errors, request_id.
// Status 0: it could not be reached.
export class Problem extends Error {
  constructor(status, body) {
    super(body.detail || body.title || `status ${status}`);
    Object.assign(this, { errors: [], ...body, status });
  }
}

function unreachable() {
  return new Problem(0, { code: "unreachable", detail: "The gateway cannot be reached." });
}

function headers(more = {}) {
  const secret = key.get();
  return secret ? { Authorization: `Bearer ${secret}`, ...more } : more;
}

function address(path, query = {}) {
  const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== null && value !== "");
  const text = new URLSearchParams(given).toString();
  return text ? `${path}?${text}` : path;
}

// A part of an address that is . or .. leads elsewhere (tabs and line ends are left out of addresses):
// a link from somebody else's hands could have a page ask for what is no page's to ask for.
const ASTRAY = /[\t\r\n]|[\\/](\.|%2e){1,2}([\\/?#]|$)/i;

async function ask(path, options) {
  if (ASTRAY.test(path.split("?")[0])) throw new Problem(404, { code: "not_found", detail: "There is no such address." });
  try {
    return await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

// `own`: it was asked with the tab's own key, which is good no longer at a 401.
async function problemOf(response, own = true) {
  const body = await response.json().catch(() => ({}));
  if (response.status === 401 && own) dispatchEvent(new CustomEvent("unauthorised", { detail: body }));
  const seconds = Number(response.headers.get("Retry-After"));
  return new Problem(response.status, seconds ? { ...body, retryAfter: seconds } : body);
}

async function call(method, path, { query, body, signal, more } = {}) {
  const sent = headers(more);
  // A request that is sent again by an impatient finger is carried out once.
  if (method === "POST") sent["Idempotency-Key"] = crypto.randomUUID ? crypto.randomUUID() : `${Date.now()}-${Math.random()}`;
  if (body !== undefined) sent["Content-Type"] = "application/json";
  const text = body === undefined ? undefined : JSON.stringify(body);
  const response = await ask(address(path, query), { method, headers: sent, body: text, signal });
  if (!response.ok) throw await problemOf(response, !more?.Authorization);
  return response.status === 204 ? null : response.json();
}

export const get = (path, query, signal) => call("GET", path, { query, signal });
export const post = (path, body, options = {}) => call("POST", path, { body, ...options });
export const put = (path, body, options = {}) => call("PUT", path, { body, ...options });
export const patch = (path, body) => call("PATCH", path, { body });
export const remove = (path) => call("DELETE", path);

// What is no JSON, such as /metrics.
export async function text(path, signal) {
  const response = await ask(path, { headers: headers(), signal });
  if (!response.ok) throw await problemOf(response);
  return response.text();
}

// Everything of a list, page by page: `cursor` names the field that `after` takes.
export async function all(path, query = {}, cursor = "id", most = 1000) {
  const found = [];
  let after;
  for (;;) {
    const page = await get(path, { limit: 100, ...query, after });
    found.push(...page.data);
    if (!page.has_more || found.length >= most) return found;
    after = page.data.at(-1)[cursor];
  }
}

// Server-sent events of a path, each given to `onEvent(name, data, id)`. With `resume`, a stream
// that breaks off is taken up again where it stood, until the gateway says that it has ended (204 or
// the end of the stream after `resume.done(name)`); `resume.lost(true|false)` is told of gaps.
export async function stream(path, { method = "GET", body, signal, onEvent, resume }) {
  let last = resume?.after ?? 0;
  let wait = 500;
  let done = false;
  for (;;) {
    try {
      const more = { Accept: "text/event-stream", ...(resume ? { "Last-Event-ID": String(last) } : {}) };
      const sent = headers(body === undefined ? more : { ...more, "Content-Type": "application/json" });
      const response = await ask(path, { method, headers: sent, body: body && JSON.stringify(body), signal });
      if (response.status === 204) return;
      if (!response.ok) throw await problemOf(response);
      resume?.lost?.(false);
      wait = 500;
      await read(response.body, (name, data, id) => {
        if (id) last = Number(id);
        if (resume?.done(name)) done = true;
        onEvent(name, data, id);
      });
      if (!resume || done) return;
    } catch (error) {
      if (error.name === "AbortError" || signal?.aborted) return;
      const passes = error.status === undefined || error.status === 0 || error.status >= 500 || error.status === 429;
      if (!resume || !passes) throw error;
      resume.lost?.(true);
      await new Promise((resolve) => setTimeout(resolve, wait));
      wait = Math.min(wait * 2, 10_000);
    }
  }
}

async function read(body, onEvent) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    const blocks = (rest + value).replaceAll("\r\n", "\n").split("\n\n");
    rest = blocks.pop();
    for (const block of blocks) {
      const fields = { event: "message", data: [], id: "" };
      for (const line of block.split("\n")) {
        const at = line.indexOf(":");
        if (at <= 0) continue; // a comment keeps the connection open
        const value = line.slice(at + 1).replace(/^ /, "");
        if (line.startsWith("data:")) fields.data.push(value);
        else fields[line.slice(0, at)] = value;
      }
      if (fields.data.length) onEvent(fields.event, JSON.parse(fields.data.join("\n")), fields.id);
    }
  }
}

// A file to a path that streams its body: `onProgress(share)`. Returns {promise, abort}.
export function upload(path, query, file, type, onProgress) {
  const request = new XMLHttpRequest();
  const promise = new Promise((resolve, reject) => {
    request.open("POST", address(path, query));
    for (const [name, value] of Object.entries(headers({ "Content-Type": type }))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(unreachable());
    request.onabort = () => reject(new Problem(0, { code: "aborted", detail: "You stopped the upload." }));
    request.onload = () => {
      let body = {};
      try {
        body = JSON.parse(request.responseText);
      } catch {
        // an answer that is none of the gateway's has no body to show
      }
      if (request.status < 400) resolve(body);
      else reject(new Problem(request.status, body));
    };
    request.send(file);
  });
  return { promise, abort: () => request.abort() };
}

// A download that needs the key: the browser saves it under `name`.
export async function download(path, name) {
  const response = await ask(path, { headers: headers() });
  if (!response.ok) throw await problemOf(response);
  const link = Object.assign(document.createElement("a"), { href: URL.createObjectURL(await response.blob()), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
