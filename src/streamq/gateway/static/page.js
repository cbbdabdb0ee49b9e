"use strict";

// Shows one stream as it arrives. Text from a stream is inserted only with textContent.

const RETRY_MS = [1000, 2000, 5000, 10000];
const WAIT_SECONDS = 300; // how long to wait for a stream that does not exist yet
const KEEP_CHARS = 2_000_000; // longest text shown per attempt
const NODE_CHARS = 16_384;
const KEEP_ATTEMPTS = 20;
const MAX_PENDING = 2_000;
const MAX_TIMES = 50_000;
const RATE_MS = 3000;
const LIST_MS = 5000;

const at = (id) => document.getElementById(id);
const output = at("output"), scroller = at("scroller"), superseded = at("superseded");

let watched = null; // the stream that is shown, with its counters

function newWatch(name) {
  return {
    name, source: null, timer: 0, retries: 0, offset: 0, attempt: 0, chunks: 0, attemptChunks: 0,
    connected: performance.now(), firstMs: null, times: [], over: false, pending: [], chars: 0,
    frame: 0, silent: false, leaving: false, place: "", bytes: newDecoder(), tail: [],
  };
}

// Escapes a name as a whole only if it could be mistaken for another (a/../b, a//b; as a status also
// a/events): some proxies reject %2F.
function address(verb, name) {
  const parts = name.split("/");
  const risky = parts.some((part) => part === "" || part === "." || part === "..")
    || verb === "streams" && name.endsWith("/events");
  return verb + "/" + (risky ? encodeURIComponent(name) : parts.map(encodeURIComponent).join("/"));
}

// Shows a character that cannot be seen as its code, as the commands do (`shown` in _events.py).
function shown(name) {
  if (!/^ | $|(?! )[\p{C}\p{Z}]|%[0-9A-Fa-f]{2}/u.test(name)) return name;
  return name.replace(/^ +| +$|(?! )[\p{C}\p{Z}]|%/gu, (part) => encodeURIComponent(part));
}

function show(id, text, className) {
  const element = at(id);
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
  if (className !== undefined) element.className = className;
}

function connection(state, text) {
  show("connection", text || state, "dot " + state);
}

// ---- one stream ---------------------------------------------------------------------------------

function watch(name) {
  if (watched) close(watched);
  const w = watched = newWatch(name);
  const url = new URL(location.href);
  url.searchParams.set("stream", name);
  history.replaceState(null, "", url);
  document.title = shown(name) + " · streamq";
  at("name").value = name;
  show("title", shown(name));
  show("attempt", "");
  show("ending", "");
  show("notice", "");
  show("empty", "");
  superseded.replaceChildren();
  output.replaceChildren();
  output.className = "";
  follow(true);
  markCurrent();
  connect(w);
  count(w);
}

function close(w) {
  w.over = true;
  if (w.source) w.source.close();
  clearTimeout(w.timer);
  cancelAnimationFrame(w.frame);
}

function connect(w) {
  connection(w.offset ? "reconnecting" : "waiting", w.offset ? "reconnecting" : "connecting");
  const query = new URLSearchParams({ wait: WAIT_SECONDS });
  if (w.place) query.set("after", w.place);
  const source = w.source = new EventSource(address("events", w.name) + "?" + query);
  const on = (kind, handle) => source.addEventListener(kind, (message) => {
    if (w !== watched || w.over) return;
    if (typeof message.data !== "string") return; // the connection's own "error"
    let event;
    try {
      event = parse(message.data);
    } catch (problem) { // one event that cannot be read must not hide the others
      flush(w);
      line("gap", `an event cannot be shown (${problem.name}): ${message.data.slice(0, 200)}`, w);
      return;
    }
    if (event.offset) {
      w.offset = event.offset;
      w.place = message.lastEventId || String(event.offset);
      w.retries = 0;
      connection("live");
      if (w.silent) show("notice", "");
      w.silent = false;
    }
    handle(w, event);
  });
  source.onopen = () => { if (w === watched) opened(w); };
  on("chunk", chunk);
  on("reset", reset);
  on("gap", gap);
  on("end", end);
  on("reconnect", () => { w.leaving = true; }); // the stream goes on; the browser comes back
  on("error", reported);
  source.addEventListener("error", (message) => {
    if (w !== watched || w.over || typeof message.data === "string") return;
    if (source.readyState === EventSource.CLOSED) refused(w);
    else if (!w.leaving) connection("reconnecting");
    w.leaving = false;
  });
}

// The connection is open. With ?wait= this does not mean that the stream exists.
async function opened(w) {
  w.leaving = false;
  const status = await ask(address("streams", w.name));
  if (w !== watched || w.over) return;
  if (status.code === 404) {
    waiting();
  } else {
    if (w.silent) {
      silent();
    } else {
      connection("live");
      show("notice", "");
    }
    show("empty", w.chunks ? "" : "Open; nothing has been written to it so far.");
    attempt(w, status.body && status.body.attempt);
  }
}

function waiting() {
  connection("waiting", "waiting for it to start");
  show("empty", "There is no stream of this name yet. It will appear here as soon as it starts.");
}

// No event has arrived within the idle deadline of the gateway. The browser reconnects, and the
// gateway listens again; this changes nothing for the viewer.
function silent() {
  output.className = "";
  connection("waiting", "waiting for the producer");
  show("notice", "Nothing has arrived for a while; the producer may be gone. " +
    "Still listening: new chunks will appear here.");
}

// The server's answer was not a stream: show the reason, and try again if that can help.
async function refused(w) {
  let status = await ask(address("streams", w.name));
  if (status.code === 200 && w.place) { // was it the place that the server refused?
    const query = new URLSearchParams({ after: w.place });
    const { code } = await ask(address("events", w.name) + "?" + query, "HEAD");
    if (code === 400) w.place = String(w.offset); // a gateway that knows no places but offsets
    if (code === 409) status = { code };
  }
  if (w !== watched || w.over) return;
  const gone = status.code === 404 && w.offset > 0;
  if (status.code === 409) {
    beganAgain(w);
    return;
  }
  if (status.code === 200 && w.retries > 2 || gone || status.code === 400) {
    stopped(w, status.code !== 200 && status.body && status.body.message
      || "The gateway refuses this stream.");
    return;
  }
  connection("reconnecting");
  if (status.body && status.body.message) show("notice", status.body.message);
  w.timer = setTimeout(() => connect(w), RETRY_MS[Math.min(w.retries++, RETRY_MS.length - 1)]);
}

function beganAgain(w) {
  stopped(w, "The stream was deleted and began again. " +
    "Select it again to see it from the beginning.");
}

function stopped(w, message) {
  close(w);
  output.className = "";
  connection("failed", "disconnected");
  show("notice", message);
}

async function ask(path, method) {
  try {
    const response = await fetch(path, { method, headers: { Accept: "application/json" } });
    return { code: response.status, body: await response.json().catch(() => null) };
  } catch {
    return { code: 0, body: { message: "The gateway does not answer." } };
  }
}

// ---- events -------------------------------------------------------------------------------------

function chunk(w, event) {
  const now = performance.now();
  if (w.firstMs === null) w.firstMs = now - w.connected;
  show("notice", "");
  show("empty", "");
  attempt(w, event.attempt);
  output.className = "running";
  w.chunks++;
  w.attemptChunks++;
  w.times.push(now);
  if (w.times.length > MAX_TIMES) w.times.splice(0, MAX_TIMES / 2);
  w.pending.push(event);
  // Hidden tabs get no animation frames, so the queue of pending chunks is bounded.
  if (w.pending.length > MAX_PENDING) flush(w);
  else if (!w.frame) w.frame = requestAnimationFrame(() => flush(w));
}

function reset(w, event) {
  flush(w);
  endBytes(w);
  if (output.hasChildNodes()) {
    const old = document.createElement("details"), head = document.createElement("summary");
    const text = document.createElement("div");
    head.textContent = `attempt ${w.attempt} (superseded), ${w.attemptChunks} chunks`;
    text.className = "old-text";
    text.append(...output.childNodes);
    old.append(head, text);
    superseded.append(old);
    if (superseded.childElementCount > KEEP_ATTEMPTS) superseded.firstChild.remove();
  }
  w.attemptChunks = w.chars = 0;
  attempt(w, event.attempt);
}

function gap(w, event) {
  flush(w);
  const first = event.first === event.offset ? `event ${event.first} is` :
    `events ${event.first} to ${event.offset} are`;
  line("gap", `${first} no longer stored`);
}

function end(w, event) {
  flush(w);
  endBytes(w);
  close(w);
  output.className = "";
  const detail = [event.error_type, event.message].filter(Boolean).join(": ");
  show("ending", event.state + (detail ? " · " + detail : ""), "badge " + event.state);
  connection("idle", "ended");
  if (!output.hasChildNodes()) show("empty", "The stream ended without a chunk.");
  count(w);
}

// The gateway reports why it closes the connection. The browser reconnects by itself.
function reported(w, event) {
  if (event.error === "stream_not_found" && !w.offset) {
    waiting();
  } else if (event.error === "idle_timeout") {
    w.silent = w.leaving = true;
    silent();
  } else if (event.error === "cursor") {
    flush(w);
    beganAgain(w);
  } else {
    show("notice", event.message);
    connection("reconnecting");
  }
}

function attempt(w, number) {
  if (!number || number === w.attempt) return;
  w.attempt = number;
  show("attempt", "attempt " + number);
}

// ---- text ---------------------------------------------------------------------------------------

function flush(w) {
  cancelAnimationFrame(w.frame);
  w.frame = 0;
  let text = "";
  for (const chunk of w.pending) {
    if (typeof chunk.value === "string") {
      endBytes(w);
      text += chunk.value;
      continue;
    }
    append(w, text);
    text = "";
    try {
      other(w, chunk);
    } catch (problem) {
      line("gap", `event ${chunk.offset} cannot be shown (${problem.name})`, w);
    }
  }
  append(w, text);
  w.pending.length = 0;
  while (w.chars > KEEP_CHARS && output.childNodes.length > 1) {
    w.chars -= output.firstChild.textContent.length;
    output.firstChild.remove();
    show("notice", "The beginning is no longer shown: the page keeps the newest text only.");
  }
  if (following) scroller.scrollTop = scroller.scrollHeight;
}

function append(w, text) {
  if (!text) return;
  w.chars += text.length;
  const last = output.lastChild;
  if (last && last.nodeType === Node.TEXT_NODE && last.length < NODE_CHARS) last.appendData(text);
  else output.append(text);
}

function line(className, text, w) {
  const element = document.createElement("div");
  element.className = className;
  element.textContent = text;
  output.append(element);
  if (w) w.chars += text.length;
}

// ---- scrolling, counters, list ------------------------------------------------------------------

let following = true;

function follow(on) {
  following = on;
  at("latest").hidden = on;
  if (on) scroller.scrollTop = scroller.scrollHeight;
}

scroller.addEventListener("scroll", () => {
  const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
  if (below < 8 !== following) follow(below < 8);
});
at("latest").addEventListener("click", () => follow(true));

function count(w) {
  const now = performance.now();
  w.times = w.times.filter((time) => time > now - RATE_MS);
  const seconds = Math.min(RATE_MS, Math.max(now - w.connected, 1)) / 1000;
  at("chunks").textContent = w.chunks.toLocaleString("en");
  at("offset").textContent = w.offset.toLocaleString("en");
  at("rate").textContent = w.over ? "–" : (w.times.length / seconds).toFixed(1);
  at("first").textContent = w.firstMs === null ? "–"
    : w.firstMs < 9950 ? Math.round(w.firstMs) + " ms" : (w.firstMs / 1000).toFixed(1) + " s";
}

setInterval(() => { if (watched && !watched.over) count(watched); }, 250);

function markCurrent() {
  for (const button of at("recent").querySelectorAll("button")) {
    button.setAttribute("aria-current", watched !== null && button.dataset.name === watched.name);
  }
}

async function list() {
  if (document.hidden) return;
  const { body } = await ask("streams?limit=50");
  const names = body && body.streams && body.streams.map((stream) => stream.name);
  if (!names) {
    show("recent-note", body && body.message || "The list is not available.");
    return;
  }
  show("recent-note", names.length ? (body.is_complete ? "" : "and more") : "none yet");
  const listed = [...at("recent").querySelectorAll("button")].map((button) => button.dataset.name);
  if (JSON.stringify(listed) === JSON.stringify(names)) return;
  const focused = at("recent").contains(document.activeElement) && document.activeElement.dataset.name;
  at("recent").replaceChildren(...names.map((name) => {
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = shown(name);
    button.dataset.name = name;
    button.addEventListener("click", () => watch(name));
    item.append(button);
    return item;
  }));
  at("known").replaceChildren(...names.map((name) => {
    const option = document.createElement("option");
    option.value = name;
    return option;
  }));
  for (const button of at("recent").querySelectorAll("button")) {
    if (button.dataset.name === focused) button.focus();
  }
  markCurrent();
}

at("pick").addEventListener("submit", (event) => {
  event.preventDefault();
  watch(at("name").value);
});
document.addEventListener("visibilitychange", list);
setInterval(list, LIST_MS);
list();

const wanted = new URLSearchParams(location.search).get("stream");
if (wanted) watch(wanted);
