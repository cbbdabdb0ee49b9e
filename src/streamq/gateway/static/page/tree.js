// Shows a JSON value: a short one on one line, another one as a tree that opens on demand.

import { make } from "./dom.js";
import { counted } from "./names.js";

const SHORT = 100;
const PREVIEW = 140;
const MOST_ENTRIES = 100;
const MOST_CHARS = 2_000;
const CLOSED_SHARE = 8; // a closed value has no elements: of its characters one in eight counts
const MOST_OPENED = 20; // entries of what the page opens by itself
const MOST_DEEP_OPEN = 3; // levels that a value shows when it is opened by the page

const isRaw = (value) => typeof JSON.isRawJSON === "function" && JSON.isRawJSON(value);
const isBranch = (value) => typeof value === "object" && value !== null && !isRaw(value);

// Returns JSON; numbers that JSON lacks are shown by their names.
function json(value) {
  return JSON.stringify(value, (_key, each) =>
    typeof each === "number" && !Number.isFinite(each) ? String(each) : each) || "";
}

// Returns the element of a value, and how many characters it counts for.
export function jsonElement(value, isOpen) {
  const short = json(value);
  if (short.length <= SHORT || !isBranch(value)) return [line(short), short.length];
  const root = branch(null, value, short);
  root.classList.add("json");
  if (isOpen && root.size <= MOST_OPENED) open(root, MOST_DEEP_OPEN);
  return [root, Math.ceil(short.length / CLOSED_SHARE)];
}

function line(text) {
  return make("div", { className: "json leaf" }, text);
}

function branch(key, value, preview) {
  const isList = Array.isArray(value);
  const size = isList ? value.length : Object.keys(value).length;
  const summary = make("summary", {}, ...named(key),
    make("span", { className: "size" }, isList ? `[${counted(size)}]` : `{${counted(size)}}`));
  if (preview) summary.append(" ", make("span", { className: "preview" }, clipped(preview, PREVIEW)));
  const node = make("details", { className: "node" }, summary);
  node.size = size;
  node.addEventListener("toggle", () => fill(node, value));
  node.fill = () => fill(node, value);
  return node;
}

function open(node, levels) {
  node.fill();
  node.open = true;
  if (levels > 1) {
    for (const child of node.querySelectorAll(":scope > .children > details.node")) {
      if (child.size <= MOST_OPENED) open(child, levels - 1);
    }
  }
}

function fill(node, value) {
  if (node.childElementCount > 1) return;
  const entries = Array.isArray(value) ? value.map((each, i) => [i, each]) : Object.entries(value);
  const children = make("div", { className: "children" });
  node.append(children);
  more(children, entries, 0);
}

function more(children, entries, from) {
  for (const [key, value] of entries.slice(from, from + MOST_ENTRIES)) {
    children.append(isBranch(value) && Object.keys(value).length ? branch(key, value) : leaf(key, value));
  }
  const left = entries.length - from - MOST_ENTRIES;
  if (left <= 0) return;
  const button = make("button", { type: "button", className: "more" },
    `Show ${counted(Math.min(left, MOST_ENTRIES))} of ${counted(left)} more`);
  button.addEventListener("click", () => {
    const before = children.childElementCount - 1;
    button.remove();
    more(children, entries, from + MOST_ENTRIES);
    const next = children.children[before];
    (next.querySelector("summary, button") || next).focus();
  });
  children.append(button);
}

function leaf(key, value) {
  const text = json(value);
  const kind = typeof value === "string" ? "string" : isBranch(value) || value === null ? "none"
    : "number";
  const shown = make("span", { className: kind }, clipped(text, MOST_CHARS));
  const row = make("div", { className: "leaf", tabIndex: -1 }, ...named(key), shown);
  if (text.length > MOST_CHARS) {
    const button = make("button", { type: "button", className: "more" },
      `Show ${counted(text.length - MOST_CHARS)} more characters`);
    button.addEventListener("click", () => {
      shown.textContent = text;
      button.remove();
      row.focus();
    });
    row.append(" ", button);
  }
  return row;
}

function named(key) {
  return key === null ? [] : [make("span", { className: "key" }, String(key)), ": "];
}

export function clipped(text, length) {
  return text.length > length ? text.slice(0, length) + "…" : text;
}
