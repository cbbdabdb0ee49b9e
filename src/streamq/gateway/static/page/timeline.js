// Shows the attempts of a stream along time: when each began, where it paused, how it ended.

import { make } from "./dom.js";
import { clock, duration, plural } from "./names.js";

const PAUSE_SECONDS = 5;
const MOST_PAUSES = 20;
const MOST_SHOWN = 12;
const MOST_KEPT = 200;
const FIRST_EPOCH = 1e15; // microseconds, in 2001: smaller numbers are no clock
const STATE_WORDS = { END: "ended", ERROR: "failed", CANCELLED: "cancelled" };

export class Timeline {
  constructor(root) {
    this.root = root;
    this.begin();
  }

  begin() {
    this.attempts = [];
    this.earlier = 0;
    this.isStale = false;
    this.root.replaceChildren();
    this.root.hidden = true;
  }

  get newest() {
    return this.attempts.at(-1);
  }

  // Notes an event; `isLive` if it was written just now, and not read from what was stored.
  note(event, isLive, now = Date.now() / 1000) {
    let attempt = this.newest;
    if (!attempt || event.attempt > attempt.number) {
      attempt = {
        number: event.attempt, began: beginning(event.id), chunks: 0, state: "", last: null,
        pauses: [], ended: null, first: null,
      };
      this.attempts.push(attempt);
      if (this.attempts.length > MOST_KEPT) {
        this.attempts.shift();
        this.earlier++;
      }
    }
    if (event.event === "reset") {
      for (const each of this.attempts.slice(0, -1)) each.state ||= "superseded";
    } else if (event.event === "end") {
      attempt.state = event.state;
      if (isLive) attempt.ended = now;
    }
    attempt.began ??= beginning(event.id); // the place of a gap has no epoch
    if (event.event === "chunk") {
      attempt.chunks++;
      if (isLive) this.#live(attempt, now);
    }
    this.isStale = true;
  }

  #live(attempt, now) {
    if (attempt.chunks === 1 && attempt.began) attempt.first = Math.max(now - attempt.began, 0);
    if (attempt.last && now - attempt.last > PAUSE_SECONDS && attempt.pauses.length < MOST_PAUSES) {
      attempt.pauses.push([attempt.last, now]);
    }
    attempt.last = now;
  }

  // Shows the newest state; `isRunning` while the stream is open.
  show(isRunning, now = Date.now() / 1000) {
    this.root.hidden = this.attempts.length === 0;
    const shown = this.attempts.slice(-MOST_SHOWN);
    const earlier = this.earlier + this.attempts.length - shown.length;
    const spans = shown.map((each, i) => this.#span(each, shown[i + 1], isRunning, now));
    const known = spans.filter((span) => span !== null);
    const usual = known.length ? known.reduce((sum, span) => sum + span, 0) / known.length : 1;
    const items = shown.map((each, i) => item(each, spans[i], spans[i] ?? usual,
      isRunning && each === this.newest, now));
    if (earlier) {
      items.unshift(make("li", { className: "attempt earlier" }, bar([]), make("span",
        { className: "what" }, `${plural(earlier, "earlier attempt")}`)));
    }
    const isNew = items.length !== this.root.childElementCount;
    this.root.replaceChildren(...items);
    const isWide = this.root.scrollWidth > this.root.clientWidth; // on a small screen
    if (isWide) this.root.tabIndex = 0;
    else this.root.removeAttribute("tabindex");
    if (isNew && isWide) this.root.scrollLeft = this.root.scrollWidth;
    this.isStale = false;
  }

  #span(attempt, next, isRunning, now) {
    if (attempt.began === null) return null;
    const until = next ? next.began : attempt.ended ?? (isRunning && attempt === this.newest ? now : null);
    return until === null ? null : Math.max(until - attempt.began, 0);
  }
}

// The epoch of an attempt is its producer's clock in microseconds, unless a program numbers them.
export function beginning(place) {
  const epoch = Number(String(place).split("@")[1]);
  return epoch > FIRST_EPOCH ? epoch / 1e6 : null;
}

function item(attempt, span, weight, isRunning, now) {
  const state = attempt.state || (isRunning ? "running" : "continued");
  const word = STATE_WORDS[state] || state;
  const paused = attempt.pauses.reduce((sum, [from, to]) => sum + to - from, 0);
  const isPausing = isRunning && attempt.last && now - attempt.last > PAUSE_SECONDS;
  const facts = [
    attempt.began !== null && clock(attempt.began),
    span !== null && duration(span),
    plural(attempt.chunks, "chunk"),
    attempt.pauses.length > 0 && `${plural(attempt.pauses.length, "pause")}, ${duration(paused)}`,
    isPausing && `silent for ${duration(now - attempt.last)}`,
  ].filter(Boolean);
  const element = make("li", { className: `attempt ${state}` },
    bar(parts(attempt, span, isPausing ? now : null)),
    make("span", { className: "what" }, `Attempt ${attempt.number} `,
      make("span", { className: "word" }, isPausing ? "pausing" : word)),
    make("span", { className: "when" }, facts.join(" · ")));
  element.style.flexGrow = Math.max(weight, 0.01);
  return element;
}

// Returns [isPause, seconds] in turn.
function parts(attempt, span, pausingUntil) {
  if (span === null) return [];
  const found = [];
  let at = attempt.began;
  const pauses = pausingUntil ? [...attempt.pauses, [attempt.last, pausingUntil]] : attempt.pauses;
  for (const [from, to] of pauses) {
    found.push([false, from - at], [true, to - from]);
    at = to;
  }
  found.push([false, Math.max(attempt.began + span - at, 0)]);
  return found;
}

function bar(found) {
  const element = make("span", { className: "bar", "aria-hidden": "true" });
  for (const [isPause, seconds] of found.length ? found : [[false, 1]]) {
    const part = make("span", { className: isPause ? "pause" : "run" });
    part.style.flexGrow = Math.max(seconds, 0);
    element.append(part);
  }
  return element;
}
