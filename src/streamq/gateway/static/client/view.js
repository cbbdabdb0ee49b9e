// Folds events into what an application shows. Design: docs/design/javascript-client.md.

import { offsetOf } from "./reading.js";

const HIDDEN_MS = 200; // a hidden page gets no animation frames
const FRAME_MS = 16;
const MOST_CHARACTERS = 2 ** 24;
const MOST_VALUES = 100_000;
const WAIT_SECONDS = 300;

// Reads a stream while it has subscribers, and shows the attempt that counts. A view is never
// changed: each change makes another one, at most one for each animation frame.
export class StreamView {
  #read;
  #stop;
  #options;
  #fold;
  #now;
  #subscribers = new Set();
  #reading = null; // aborts the reading that is under way
  #cancelFrame = null;

  constructor(name, options, read, stop) {
    this.name = name;
    this.#options = { wait: WAIT_SECONDS, ...options };
    this.#read = read;
    this.#stop = stop;
    this.#fold = new Fold(name, options);
    this.#now = this.#fold.view();
  }

  get current() {
    return this.#now;
  }

  // The same as a function, as React's useSyncExternalStore takes it.
  getSnapshot = () => this.#now;

  // Calls a function with each view from now on. Returns a function that ends this; the connection
  // is closed with the last subscriber, and the next one goes on at its place.
  subscribe = (listener) => {
    const entry = { listener };
    this.#subscribers.add(entry);
    this.#begin();
    return () => {
      this.#subscribers.delete(entry);
      if (!this.#subscribers.size) this.#pause();
    };
  };

  // Stops what writes the stream.
  stop(options) {
    return this.#stop(this.name, options);
  }

  // Reads no more.
  close() {
    this.#subscribers.clear();
    this.#pause();
  }

  #begin() {
    const of = this.#options.signal;
    if (this.#reading || this.#fold.isOver || of?.aborted) return;
    this.#reading = new AbortController();
    const { signal } = this.#reading;
    of?.addEventListener("abort", () => this.close(), { signal });
    this.#run(signal);
  }

  #pause() {
    this.#reading?.abort();
    this.#reading = null;
    this.#cancelFrame?.();
    this.#cancelFrame = null;
    this.#now = this.#fold.view();
  }

  // It never fails: an error becomes the state "failed".
  async #run(signal) {
    const fold = this.#fold;
    const { from, after, ...options } = this.#options;
    const start = fold.place ? { after: fold.place } : after ? { after } : { from };
    const onConnection = (now) => {
      if (signal.aborted) return;
      options.onConnection?.(now);
      if (fold.connection(now)) this.#schedule();
    };
    try {
      for await (const event of this.#read(this.name, { ...options, ...start, signal, onConnection })) {
        if (signal.aborted) return; // the next reading has it, too: it began before this event
        fold.add(event);
        this.#schedule();
      }
      if (!signal.aborted) fold.finish();
    } catch (problem) {
      if (signal.aborted) return;
      fold.fail(problem);
    }
    if (signal.aborted) return;
    this.#reading.abort();
    this.#reading = null;
    this.#publish();
  }

  #schedule() {
    this.#cancelFrame ??= nextFrame(() => this.#publish());
  }

  #publish() {
    this.#cancelFrame?.();
    this.#cancelFrame = null;
    this.#now = this.#fold.view();
    for (const { listener } of [...this.#subscribers]) {
      try {
        listener(this.#now);
      } catch (problem) { // of the application; the others go on
        reportError(problem);
      }
    }
  }
}

// The attempt that counts, and how the stream stands.
class Fold {
  place = "";
  isOver = false;
  #name;
  #limits;
  #state = "waiting";
  #problem = null;
  #ending = null;
  #attempt = 0;
  #text = "";
  #values = [];
  #chunks = 0;
  #isCut = false;
  #decoder = null;

  constructor(name, { maxCharacters = MOST_CHARACTERS, maxValues = MOST_VALUES }) {
    this.#name = name;
    this.#limits = { maxCharacters, maxValues };
  }

  add(event) {
    this.place = event.id;
    this.#problem = null;
    this.#attempt = event.attempt ?? this.#attempt;
    if (event.event === "end") {
      this.#ending = event;
      this.#state = event.state;
      this.isOver = true;
      this.#text += this.#decoder?.decode() ?? "";
      return;
    }
    this.#state = "live";
    if (event.event === "chunk") this.#chunk(event);
    else if (event.event === "gap") this.#isCut = true;
    else if (event.event === "reset") this.#clear();
  }

  // Returns whether that changes anything.
  connection({ state, problem }) {
    const before = [this.#state, this.#problem];
    this.#problem = problem;
    this.#state = state === "reconnecting" ? state : this.place ? "live" : "waiting";
    return before[0] !== this.#state || before[1] !== problem;
  }

  fail(problem) {
    this.#state = "failed";
    this.#problem = problem;
    this.isOver = true;
  }

  // The gateway has nothing more, since the reader had the end before.
  finish() {
    this.isOver = true;
  }

  view() {
    const values = this.#values, length = values.length;
    let copy = null;
    return Object.freeze({
      name: this.#name, state: this.#state, isOver: this.isOver, text: this.#text,
      get values() { return copy ??= values.slice(0, length); },
      attempt: this.#attempt, chunks: this.#chunks, offset: offsetOf(this.place), place: this.place,
      ending: this.#ending, problem: this.#problem, isCut: this.#isCut,
    });
  }

  #clear() {
    this.#text = "";
    this.#values = [];
    this.#chunks = 0;
    this.#isCut = false;
    this.#decoder = null;
  }

  #chunk(event) {
    this.#chunks++;
    this.#text += this.#textOf(event);
    this.#values.push(event.bytes ?? event.value);
    const { maxCharacters, maxValues } = this.#limits;
    if (this.#text.length > maxCharacters) {
      this.#isCut = true;
      this.#text = this.#text.slice(-Math.ceil(maxCharacters / 2));
    }
    if (this.#values.length > maxValues) {
      this.#isCut = true;
      this.#values = this.#values.slice(-Math.ceil(maxValues / 2));
    }
  }

  // Bytes count as UTF-8, also where a chunk ends within a character.
  #textOf({ bytes, value }) {
    if (bytes) {
      this.#decoder ??= new TextDecoder("utf-8", { ignoreBOM: true });
      return this.#decoder.decode(bytes, { stream: true });
    }
    return typeof value === "string" ? value : "";
  }
}

// Calls a function before the next frame of a visible page, or soon. Returns what calls it off.
function nextFrame(call) {
  const draws = globalThis.requestAnimationFrame;
  const frame = draws?.(() => call());
  const timer = setTimeout(call, draws ? HIDDEN_MS : FRAME_MS);
  return () => {
    clearTimeout(timer);
    if (draws) cancelAnimationFrame(frame);
  };
}

function reportError(problem) {
  if (globalThis.reportError) globalThis.reportError(problem);
  else queueMicrotask(() => { throw problem; });
}

// Yields the views of a stream; a slow program gets the newest one, not each.
export async function* viewsOf(view, signal) {
  let wake = null, shown = null;
  const unsubscribe = view.subscribe(() => wake?.());
  const abort = () => wake?.();
  signal?.addEventListener("abort", abort);
  try {
    for (;;) {
      signal?.throwIfAborted();
      if (view.current !== shown) {
        shown = view.current;
        yield shown;
        if (shown.isOver) return;
      } else {
        await new Promise((resolve) => { wake = resolve; });
      }
    }
  } finally {
    signal?.removeEventListener("abort", abort);
    unsubscribe();
  }
}
