// Makes and changes elements. Text of others is inserted only as text, never as HTML.

export const at = (id) => document.getElementById(id);

// Makes an element; properties that begin with "aria-" or "data-", and "role", are attributes.
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (/^(aria-|data-|role$)/.test(name)) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

// Shows a text, or hides the element if there is none; touches nothing that is already so.
export function show(id, text, className) {
  const element = typeof id === "string" ? at(id) : id;
  element.hidden = !text;
  if (element.textContent !== text) element.textContent = text;
  if (className !== undefined && element.className !== className) element.className = className;
}

let spoken = "", timer = 0, last = -Infinity;
const QUIET_MS = 4000;

// Tells a screen reader something; of several texts within four seconds only the newest one.
export function announce(text) {
  spoken = text;
  if (timer) return;
  timer = setTimeout(() => {
    timer = 0;
    last = performance.now();
    at("announcement").textContent = spoken;
  }, Math.max(0, last + QUIET_MS - performance.now()));
}

let toastTimer = 0;
const TOAST_MS = 6000;

// Shows the outcome of what somebody has just done, for some seconds.
export function toast(text) {
  show("toast", text);
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => show("toast", ""), TOAST_MS);
}
