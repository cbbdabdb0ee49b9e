// Shows the streams, grouped by workflow or folder, and what has changed every few seconds.

import { at, make, show } from "./dom.js";
import { age, counted, plural, shown } from "./names.js";
import { ask, changes, learn, needToken } from "./session.js";
import { SHAPES, STATES } from "./states.js";

const LIST_MS = 5000;
const SOON_MS = 1000; // while details of some streams are not known
const TYPING_MS = 250;
const MOST = 500;

let streams = null, filter = "", wanted = "", current = null, openStream = () => {};
let isAll = true; // whether all streams fit in the list; if not, the gateway searches, too
let isDescribed = false; // whether the state of each that has one is known
let searched = "", isComplete = true; // what is listed begins so, and whether that is all that does
let timer = 0, isAsking = false, isAskedAgain = false, isWaitingForToken = false, typing = 0;
const rows = new Map(); // name: {item, button, ..., text}
const offsets = new Map(); // name: {offset, at, rate}

export function start(open) {
  openStream = open;
  for (const state of ["", ...STATES]) {
    const button = make("button", { type: "button", className: "chip", "data-state": state,
      "aria-pressed": String(state === filter) });
    button.addEventListener("click", () => {
      filter = state;
      for (const each of at("filters").children) {
        each.setAttribute("aria-pressed", String(each.dataset.state === filter));
      }
      choose();
    });
    at("filters").append(button);
  }
  at("name").addEventListener("input", () => {
    wanted = at("name").value;
    choose();
    if (!isAll) {
      clearTimeout(typing);
      typing = setTimeout(poll, TYPING_MS);
    }
  });
  at("name").addEventListener("keydown", (event) => {
    if (event.key !== "ArrowDown") return;
    event.preventDefault();
    visible()[0]?.focus();
  });
  at("pick").addEventListener("submit", (event) => {
    event.preventDefault();
    const buttons = visible();
    const name = wanted || at("name").value;
    if (!name) return;
    openStream(!rows.has(name) && buttons.length === 1 ? buttons[0].dataset.name : name);
  });
  at("list").addEventListener("keydown", move);
  at("list").addEventListener("click", (event) => {
    const button = event.target.closest("button[data-name]");
    if (button) openStream(button.dataset.name);
  });
  changes.addEventListener("token", () => {
    isWaitingForToken = false;
    poll();
  });
  changes.addEventListener("logout", () => { // whoever comes next may see nothing of it
    take([]);
    streams = null;
  });
  document.addEventListener("visibilitychange", poll);
  choose();
  poll();
}

// ---- asking -------------------------------------------------------------------------------------

export async function poll() {
  isAskedAgain = isAsking;
  if (isAsking || isWaitingForToken) return;
  clearTimeout(timer);
  if (document.hidden) return; // asked again when it is looked at
  isAsking = true;
  const query = new URLSearchParams({ limit: MOST, details: true });
  const prefix = isAll ? "" : wanted; // what is listed is searched here, everything by the gateway
  if (prefix) query.set("prefix", prefix);
  const { code, body } = await ask("streams?" + query);
  isAsking = false;
  const isKnown = code !== 200 || body.details_are_complete;
  timer = setTimeout(poll, isAskedAgain ? 0 : isKnown ? LIST_MS : SOON_MS);
  if (code === 200) {
    learn(body);
    searched = prefix;
    isDescribed = isKnown;
    isComplete = body.is_complete;
    if (!prefix) isAll = isComplete;
    take(body.streams);
  } else if (code === 401) {
    isWaitingForToken = true;
    note("Give a token to see the list.");
    await needToken({ code: body && body.error, message: body && body.message });
  } else if (code === 403) {
    note("You may not list streams here. Open one by its name.");
  } else {
    note(body && body.message ? body.message + ". Trying again…" : "The list is not available.");
  }
}

function note(text) {
  show("list-note", text);
}

function take(listed) {
  const now = performance.now();
  for (const { name, offset } of listed) {
    const before = offsets.get(name);
    if (offset === null) continue;
    const seconds = before ? (now - before.at) / 1000 : 0;
    if (before && seconds < 0.9) continue;
    const rate = before && offset >= before.offset ? (offset - before.offset) / seconds : null;
    offsets.set(name, { offset, at: now, rate });
  }
  const names = new Set(listed.map((stream) => stream.name));
  for (const name of [...offsets.keys()]) if (!names.has(name)) offsets.delete(name);
  streams = listed;
  draw(names);
  choose();
}

// ---- rows ---------------------------------------------------------------------------------------

// Open ones first, then the newest ones, by when they began: so the order seldom changes.
function draw(names) {
  const focused = document.activeElement?.dataset?.name;
  const groups = new Map();
  const isEnded = (stream) => stream.state !== "OPEN";
  const sorted = [...streams].sort((a, b) =>
    isEnded(a) - isEnded(b) || (b.opened_at || 0) - (a.opened_at || 0));
  for (const stream of sorted) {
    const [key, label, rest] = place(stream);
    if (!groups.has(key)) groups.set(key, { label, members: [] });
    groups.get(key).members.push([stream, rest]);
  }
  for (const name of [...rows.keys()]) if (!names.has(name)) rows.delete(name);
  const sections = [...groups].map(([key, { label, members }]) => section(key, label, members));
  const before = [...at("list").children];
  if (before.length !== sections.length || before.some((each, i) => each !== sections[i])) {
    at("list").replaceChildren(...sections);
  }
  if (focused && document.activeElement?.dataset?.name !== focused) { // it was taken out and put in
    rows.get(focused)?.button.focus({ preventScroll: true });
  }
  for (const key of [...kept.keys()]) if (!groups.has(key)) kept.delete(key);
}

// Returns the group of a stream, its title, and what the stream is called in it.
function place(stream) {
  const execution = stream.execution;
  if (execution) {
    const rest = stream.name.slice(stream.name.lastIndexOf("/") + 1);
    return [`${execution.kind} ${execution.id} ${execution.run_id}`,
      [execution.kind, execution.id, execution.run_id.slice(0, 8)], rest];
  }
  const at = stream.name.lastIndexOf("/");
  if (at <= 0 || at === stream.name.length - 1) return [`stream ${stream.name}`, null, stream.name];
  return [`folder ${stream.name.slice(0, at)}`, ["folder", stream.name.slice(0, at + 1), ""],
    stream.name.slice(at + 1)];
}

const kept = new Map(); // key: {element, list, names}

function section(key, label, members) {
  let group = kept.get(key);
  if (!group) {
    const list = make("ul");
    const element = make("section", { className: label ? "group" : "group single" });
    if (label) {
      const [kind, id, run] = label;
      const title = make("h2", { title: shown(id) },
        make("span", { className: "id" }, shown(id)),
        make("span", { className: "kind" }, run ? `${kind} ${run}` : kind));
      element.append(title);
    }
    element.append(list);
    group = { element, list, names: "" };
    kept.set(key, group);
  }
  const items = members.map(([stream, rest]) => row(stream, rest).item);
  const names = JSON.stringify(members.map(([stream]) => stream.name));
  if (group.names !== names) {
    group.list.replaceChildren(...items);
    group.names = names;
  }
  return group.element;
}

function row(stream, rest) {
  let found = rows.get(stream.name);
  if (!found) {
    const part = (className) => make("span", { className });
    const [glyph, title, word, facts, when] = ["glyph", "name", "word", "facts", "age"].map(part);
    glyph.setAttribute("aria-hidden", "true");
    title.textContent = shown(rest);
    const button = make("button", { type: "button", "data-name": stream.name, tabIndex: -1 },
      glyph, title, word, facts, when);
    found = { item: make("li", {}, button), button, glyph, word, facts, when, stream, text: "" };
    rows.set(stream.name, found);
    mark(found);
  }
  found.stream = stream;
  const state = stream.state || "";
  const rate = offsets.get(stream.name)?.rate;
  const facts = [
    stream.attempt > 1 && `attempt ${stream.attempt}`,
    stream.offset !== null && plural(stream.offset, "event"),
    state === "OPEN" && rate > 0 && `${rate < 10 ? rate.toFixed(1) : counted(Math.round(rate))}/s`,
  ].filter(Boolean).join(" · ");
  const when = stream.opened_at ? age(Date.now() / 1000 - stream.opened_at) : "";
  const text = [state, facts, when].join("|");
  if (found.text !== text) {
    found.text = text;
    found.glyph.className = "glyph " + state;
    found.glyph.textContent = SHAPES[state];
    found.word.className = "word " + state;
    found.word.textContent = state;
    found.facts.textContent = facts;
    found.when.textContent = when;
  }
  return found;
}

function mark({ button }) {
  const is = button.dataset.name === current;
  button.setAttribute("aria-current", String(is));
  if (is) {
    for (const other of at("list").querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    button.tabIndex = 0;
  }
}

export function setCurrent(name) {
  const before = rows.get(current);
  current = name;
  if (before) mark(before);
  if (rows.has(name)) {
    mark(rows.get(name));
    rows.get(name).button.scrollIntoView({ block: "nearest" });
  }
}

// ---- choosing -----------------------------------------------------------------------------------

// Hides what is not searched for, and counts what there is.
function choose() {
  const counts = new Map([["", 0], ...STATES.map((state) => [state, 0])]);
  const text = wanted.toLowerCase();
  let isListed = false, seen = 0;
  for (const { item, stream } of rows.values()) {
    const matches = !text || stream.name.toLowerCase().includes(text)
      || shown(stream.name).toLowerCase().includes(text);
    if (matches) {
      counts.set("", counts.get("") + 1);
      if (stream.state) counts.set(stream.state, counts.get(stream.state) + 1);
    }
    item.hidden = !(matches && (!filter || stream.state === filter));
    if (!item.hidden) seen++;
    isListed ||= stream.name === wanted;
  }
  for (const { element, list } of kept.values()) {
    element.hidden = [...list.children].every((item) => item.hidden);
  }
  for (const button of at("filters").children) {
    const state = button.dataset.state;
    const name = state || "All";
    const count = counted(counts.get(state)) + (!state || isDescribed || streams === null ? "" : "…");
    if (button.dataset.text === name + count) continue;
    button.dataset.text = name + count;
    button.replaceChildren(...(state ? [make("span", { className: "glyph " + state,
      "aria-hidden": "true" }, SHAPES[state])] : []), make("span", { className: "chip-name" }, name),
      " ", make("span", { className: "count" }, count));
  }
  at("open").hidden = !wanted || isListed;
  at("open").textContent = "Open";
  if (streams === null) return;
  note(!streams.length ? (wanted ? "No stream begins so." : "No streams yet.") : !seen ? "No stream matches."
    : isComplete ? (searched ? "These are all whose names begin so." : "")
    : `These are the newest ${counted(streams.length)}${searched ? " that begin so" : ""}. Type ` +
      `${searched ? "more" : "the beginning"} of a name to find others.`);
  const buttons = visible();
  if (!buttons.some((button) => button.tabIndex === 0)) {
    for (const other of at("list").querySelectorAll('[tabindex="0"]')) other.tabIndex = -1;
    if (buttons[0]) buttons[0].tabIndex = 0;
  }
}

function visible() {
  return [...at("list").querySelectorAll("button[data-name]")]
    .filter((button) => !button.parentElement.hidden);
}

// Returns the name of the stream that is `step` further down the list.
export function neighbour(step) {
  const buttons = visible();
  const here = buttons.findIndex((button) => button.dataset.name === current);
  const next = here < 0 ? (step > 0 ? 0 : buttons.length - 1) : here + step;
  return buttons[next]?.dataset.name;
}

function move(event) {
  const buttons = visible();
  const here = buttons.indexOf(document.activeElement);
  const next = { ArrowDown: here + 1, ArrowUp: here - 1, Home: 0, End: buttons.length - 1,
    PageDown: Math.min(here + 10, buttons.length - 1), PageUp: Math.max(here - 10, 0) }[event.key];
  if (next === undefined || here < 0) return;
  event.preventDefault();
  if (next < 0) {
    at("name").focus();
    return;
  }
  const button = buttons[Math.min(next, buttons.length - 1)];
  buttons[here].tabIndex = -1;
  button.tabIndex = 0;
  button.focus();
}
