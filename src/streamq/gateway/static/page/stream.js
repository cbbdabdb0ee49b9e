// Reads one stream and shows it: text, attempts, endings, and how the connection stands.

import { announce, at, make, show } from "./dom.js";
import { Counters } from "./counters.js";
import { address, nameParts, plural, shown } from "./names.js";
import { Output } from "./output.js";
import { ask, gateway, hasToken, learn, needToken } from "./session.js";
import { follow, isFollowing, isLive, toBeginning } from "./scrolling.js";
import { SHAPES, meaning, reason, refusal } from "./states.js";
import { Superseded } from "./superseded.js";
import { Timeline } from "./timeline.js";
import { Values } from "./values.js";

const WAIT_SECONDS = 86_400; // for a stream that does not exist yet
const MAX_PENDING = 2_000; // chunks that wait for the next frame of the screen
const REFRESH_MS = 500;

export const output = new Output(at("output"));
const values = new Values(output), counters = new Counters(), timeline = new Timeline(at("timeline"));
const superseded = new Superseded(at("superseded"));

let watched = null; // the stream that is shown

export const watchedStream = () => watched;

export function watch(name) {
  leave();
  const w = watched = {
    name, stop: new AbortController(), place: "", offset: 0, liveAfter: Infinity,
    state: "ABSENT", isSilent: false, isOver: false, lacksToken: false, hasGap: false, pending: [], frame: 0, status: null,
  };
  document.title = shown(name) + " · streamq";
  at("title").replaceChildren(...nameParts(name));
  at("welcome").hidden = true;
  at("head").hidden = at("scroller").hidden = false;
  clear(w);
  running(w, false);
  follow(true);
  isLive(true);
  connection("waiting", "connecting");
  read(w);
}

// Removes what was read.
function clear(w) {
  for (const id of ["notice", "empty", "reason"]) show(id, "");
  at("ending").hidden = at("temporal").hidden = at("stop").hidden = true;
  superseded.clear();
  output.take();
  values.begin();
  timeline.begin();
  counters.begin();
  state(w, "");
}

// Stops reading; what is shown stays until another stream is shown.
export function leave() {
  if (watched) close(watched);
  watched = null;
}

function close(w) {
  w.isOver = true;
  w.stop.abort();
  cancelAnimationFrame(w.frame);
}

export function hide() {
  leave();
  document.title = "streamq";
  at("welcome").hidden = false;
  at("head").hidden = at("scroller").hidden = at("latest").hidden = true;
}

// ---- reading ------------------------------------------------------------------------------------

async function read(w) {
  while (!w.isOver) {
    try {
      const options = {
        after: w.place || undefined, wait: WAIT_SECONDS, signal: w.stop.signal,
        onConnection: (to) => connected(w, to),
        onUnreadable: (text) => unreadable(w, text),
      };
      for await (const event of gateway().events(w.name, options)) {
        if (w.isOver) return;
        take(w, event);
      }
      if (!w.isOver) stopped(w, "The gateway has no more of this stream.");
      return;
    } catch (problem) {
      if (w.isOver || !await recover(w, problem)) return;
    }
  }
}

function take(w, event) {
  w.offset = event.offset;
  w.place = event.id;
  if (w.state !== "OPEN") state(w, "OPEN");
  if (w.isSilent) {
    w.isSilent = false;
    show("notice", "");
    connection("live");
  }
  const isNew = event.offset > w.liveAfter;
  if (event.event === "reset") reset(w, event);
  timeline.note(event, isNew);
  if (event.event === "chunk") chunk(w, event, isNew);
  else if (event.event === "gap") gap(w, event);
  else if (event.event === "end") end(w, event, isNew);
}

function connected(w, { state: to, problem }) {
  if (w.isOver) return;
  if (to === "open") {
    opened(w);
  } else if (problem.code === "stream_not_found" && !w.offset) {
    waiting(w);
  } else if (problem.code === "idle_timeout") {
    w.isSilent = true;
    silent();
  } else if (!w.isSilent) {
    connection("reconnecting");
    if (!["connection_lost", "max_age", "stopping"].includes(problem.code)) {
      show("notice", refusal(problem.code, problem.message));
    }
  }
}

// The connection is open. With ?wait= this does not mean that the stream exists.
async function opened(w) {
  const { code, body } = await ask(address("streams", w.name));
  if (w !== watched) return;
  if (code === 200) {
    learn(body);
    known(w, body);
    if (w.liveAfter === Infinity) w.liveAfter = body.offset;
  }
  if (w.isOver) return;
  if (code === 404) {
    waiting(w);
    if (w.liveAfter === Infinity) w.liveAfter = 0;
    return;
  }
  if (w.isSilent) {
    silent();
  } else {
    connection("live");
    if (w.state === "ABSENT") state(w, "OPEN");
    running(w, true);
    show("notice", "");
  }
  show("empty", output.isEmpty && !w.pending.length ? "Open; nothing has been written to it so far." : "");
}

// Shows nothing more to whoever comes after somebody who has logged out.
export function logOut() {
  if (!watched) return;
  close(watched);
  clear(watched);
  stopped(watched, "You have logged out; nothing more is read.");
  watched.lacksToken = true;
}

// Goes on with another token, or asks what may be done with it.
export async function refresh() {
  const w = watched;
  if (!w) return;
  if (w.lacksToken && hasToken()) {
    watch(w.name);
    return;
  }
  const { code, body } = await ask(address("streams", w.name));
  if (w === watched && code === 200) {
    learn(body);
    known(w, body);
  }
}

function known(w, status) {
  w.status = status;
  at("stop").hidden = w.isOver || Boolean(status.seal) || !status.actions.includes("cancel");
  at("temporal").hidden = !status.temporal_url;
  if (status.temporal_url) at("temporal").href = status.temporal_url;
}

// Decides what follows after an error; returns whether to read on.
async function recover(w, problem) {
  flush(w);
  if (problem.status === 401 || problem.code === "revoked") {
    running(w, false);
    connection("failed", "needs a token");
    show("empty", output.isEmpty ? "Give a token to see this stream." : "");
    const isGiven = await needToken(problem);
    if (!w.isOver && !isGiven) {
      stopped(w, "Without a token nothing more is read.");
      w.lacksToken = true;
    }
    return isGiven;
  }
  if (problem.code === "cursor") {
    beganAgain(w);
  } else if (problem.status === 400 && w.place.includes("@")) {
    w.place = w.place.split("@")[0]; // a gateway that knows no places but offsets
    return true;
  } else if (problem.code === "stream_not_found") {
    if (!w.offset) return true;
    stopped(w, "The stream was deleted, or has expired. What you see is a copy; nothing more comes.");
  } else {
    stopped(w, refusal(problem.code, problem.message || String(problem)));
  }
  return false;
}

function waiting(w) {
  state(w, "ABSENT");
  running(w, false);
  connection("waiting", "waiting for it to start");
  show("empty", "There is no stream of this name yet. It will appear here as soon as it starts.");
}

// No event has arrived within the idle deadline of the gateway. It listens again by itself.
function silent() {
  at("output").classList.remove("running");
  connection("waiting", "waiting for the producer");
  show("notice", "Nothing has arrived for a while; the producer may be gone. " +
    "Still listening: new chunks will appear here. If you expect more, look at the worker.");
}

function beganAgain(w) {
  stopped(w, "The stream was deleted and began again. " +
    "Select it again to see it from the beginning.");
}

function stopped(w, message) {
  close(w);
  running(w, false);
  connection("failed", "disconnected");
  show("notice", message);
  announce(message);
}

// ---- events -------------------------------------------------------------------------------------

function chunk(w, event, isNew) {
  counters.chunk(isNew);
  if (!w.pending.length) show("empty", "");
  running(w, true);
  w.pending.push(event);
  // Hidden tabs get no animation frames, so the queue of pending chunks is bounded.
  if (w.pending.length > MAX_PENDING) flush(w);
  else if (!w.frame) w.frame = requestAnimationFrame(() => flush(w));
}

function reset(w, event) {
  flush(w);
  values.end();
  output.endText();
  if (!output.isEmpty) {
    superseded.add(`attempt ${timeline.newest?.number} (superseded), ${plural(counters.chunks, "chunk")}`,
      output.take(), at("output").classList.contains("log"));
  }
  values.begin();
  counters.supersede();
  announce(`Attempt ${event.attempt} starts over. What was before is void.`);
}

function gap(w, event) {
  flush(w);
  w.hasGap = true;
  const what = event.first === event.offset ? `Event ${event.first} is` :
    `Events ${event.first} to ${event.offset} are`;
  note(`${what} no longer stored: the backend has removed the oldest ones.`);
}

function unreadable(w, text) {
  flush(w);
  note(`an event cannot be shown: ${text.slice(0, 200)}`);
}

function note(text) {
  output.row(make("div", { className: "gap" }, text), text.length);
}

function end(w, event, isNew) {
  flush(w);
  values.end();
  output.endText();
  close(w);
  running(w, false);
  state(w, event.state);
  at("stop").hidden = true;
  at("ending").hidden = false;
  at("ending").className = "notice " + event.state;
  show("reason", reason(event));
  show("meaning", meaning(event, w.hasGap));
  show("notice", "");
  show("empty", output.isEmpty ? "The stream ended without a chunk." : "");
  connection("idle", "ended");
  draw(w);
  isLive(false);
  if (!isNew) toBeginning();
  announce(`The stream ended: ${event.state}. ${reason(event)}`);
}

// ---- showing ------------------------------------------------------------------------------------

function flush(w) {
  cancelAnimationFrame(w.frame);
  w.frame = 0;
  let text = "";
  const pour = () => {
    output.text(text);
    text = "";
  };
  for (const each of w.pending) {
    if (typeof each.value === "string" && !each.undecoded) {
      output.see(each.value);
      values.end();
      text += each.value;
      continue;
    }
    pour();
    try {
      values.add(each);
    } catch (problem) { // one value that cannot be shown must not hide the others
      note(`event ${each.offset} cannot be shown (${problem.name})`);
    }
  }
  pour();
  w.pending.length = 0;
  if (output.trim()) {
    show("notice", "The beginning is no longer shown: the page keeps the newest part only. " +
      "Download has all of it.");
  }
  if (isFollowing()) follow(true);
}

function state(w, to) {
  w.state = to || "ABSENT";
  const element = at("state");
  element.hidden = !to;
  at("counters").hidden = at("tools").hidden = w.state === "ABSENT";
  if (!to || element.dataset.state === to) return;
  element.dataset.state = to;
  element.className = "badge " + to;
  element.replaceChildren(make("span", { className: "glyph " + to, "aria-hidden": "true" }, SHAPES[to]),
    to === "ABSENT" ? "NOT THERE YET" : to);
}

function running(w, is) {
  at("output").classList.toggle("running", is && !w.isOver);
}

function connection(kind, text) {
  show("connection", text || kind, "dot " + kind);
}

function draw(w) {
  counters.show(w.offset, timeline.newest?.first, !w.isOver && w.state === "OPEN");
  timeline.show(!w.isOver && w.state === "OPEN");
}

setInterval(() => {
  if (watched && !watched.isOver) draw(watched);
}, REFRESH_MS);
