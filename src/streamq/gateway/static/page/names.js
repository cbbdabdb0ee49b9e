// Shows names, counts and times.

import { make } from "./dom.js";

// Shows a character that cannot be seen as its code, as the commands do (`shown` in _events.py).
export function shown(name) {
  if (!/^ | $|(?! )[\p{C}\p{Z}]|%[0-9A-Fa-f]{2}/u.test(name)) return name;
  return name.replace(/^ +| +$|(?! )[\p{C}\p{Z}]|%/gu, (part) => encodeURIComponent(part));
}

// Returns a name in parts, of which a run id, that nobody reads, is set apart.
export function nameParts(name) {
  const run = /^(.+\/)((?:activity-)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})(\/[^/]+)$/s.exec(name);
  if (!run) return [shown(name)];
  return [shown(run[1]), make("span", { className: "run-id" }, run[2]), shown(run[3])];
}

// Escapes a name as a whole only if it could be mistaken for another (a/../b, a//b; as a status also
// a/events): some proxies reject %2F.
export function address(verb, name) {
  const parts = name.split("/");
  const risky = parts.some((part) => part === "" || part === "." || part === "..")
    || verb === "streams" && name.endsWith("/events");
  return verb + "/" + (risky ? encodeURIComponent(name) : parts.map(encodeURIComponent).join("/"));
}

export const counted = (number) => number.toLocaleString("en");

export function plural(number, word) {
  return `${counted(number)} ${word}${number === 1 ? "" : "s"}`;
}

// Shows a time of seconds in one unit.
export function duration(seconds) {
  if (seconds < 0.9995) return Math.max(0, Math.round(seconds * 1000)) + " ms";
  if (seconds < 9.95) return seconds.toFixed(1) + " s";
  if (seconds < 119.5) return Math.round(seconds) + " s";
  if (seconds < 119.5 * 60) return Math.round(seconds / 60) + " min";
  if (seconds < 48 * 3600) return Math.round(seconds / 3600) + " h";
  return Math.round(seconds / 86400) + " d";
}

// Shows how long ago something was; a minute is exact enough.
export function age(seconds) {
  return seconds < 5 ? "just now" : duration(Math.round(seconds)) + " ago";
}

// Shows a time of day, with the date if that is not today's.
export function clock(seconds) {
  const date = new Date(seconds * 1000);
  const time = date.toLocaleTimeString("en-GB");
  return date.toDateString() === new Date().toDateString() ? time
    : date.toLocaleDateString("en-CA") + " " + time;
}
