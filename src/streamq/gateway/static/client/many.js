// Reads many streams over one connection. Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { offsetOf, readFrames } from "./reading.js";

const MOST_WAIT_SECONDS = 300;
const TOGETHER_MS = 5; // changes that come together cause one reconnect
export const SIZE = Symbol("characters of an event");
const SETTLED_MS = 250; // that a connection lasts at least before another change ends it
const CONNECTING_MS = 2_000; // that it has for its first byte

// Iterates over the events of all streams. Each event has `stream`; each stream has its own place,
// ending and errors. Streams can be added and removed while it runs.
export class Subscription {
  #http;
  #options;
  #prefixes;
  #places = new Map(); // of each stream that goes on: its place, "" at its beginning
  #ended = new Map(); // of each stream of a prefix that has ended: its last place
  #added = new Map(); // what the next connection reads as well
  #removed = new Set(); // streams of a prefix that are read no more; the gateway sends them
  #connections = 0;
  #own = new AbortController();
  #restart = new AbortController();
  #changing = null;
  #busyUntil = 0; // a connection that a change has made is left alone
  #until;
  #events;

  constructor(http, names, { prefixes = [], after = {}, ...options }) {
    if (!Array.isArray(prefixes)) { // text would be taken for a list of its letters
      throw new GatewayError("bad_request", `prefixes is ${JSON.stringify(prefixes)}; give a list`);
    }
    this.#http = http;
    this.#options = options;
    this.#prefixes = [...prefixes];
    for (const name of names) this.#places.set(name, after[name] ?? "");
    for (const [name, place] of Object.entries(after)) {
      if (this.#isOfPrefix(name)) this.#places.set(name, place);
    }
    if (this.#isDone) {
      throw new GatewayError("bad_request", "there is no stream to read: give names or prefixes");
    }
    this.#wait();
    const abort = () => this.#own.abort(options.signal.reason);
    if (options.signal?.aborted) abort();
    options.signal?.addEventListener("abort", abort);
    this.#own.signal.addEventListener("abort",
      () => options.signal?.removeEventListener("abort", abort));
    this.#events = this.#read();
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  next() {
    return this.#events.next();
  }

  // Closes the connection, also while `next` waits.
  async return(value) {
    this.#own.abort(CLOSED);
    clearTimeout(this.#changing);
    await this.#events.return();
    return { done: true, value };
  }

  // Places to go on from, by the names of the streams.
  get places() {
    return Object.fromEntries([...this.#ended, ...this.#places].filter(([, place]) => place));
  }

  // Counts the connections; what is added comes with the next one.
  get connections() {
    return this.#connections;
  }

  // Reads a stream as well, from its beginning or after a place.
  add(name, { after = "" } = {}) {
    this.#added.set(name, after);
    this.#change();
  }

  // Reads a stream no more.
  remove(name) {
    const isAdded = this.#added.delete(name), place = this.#places.get(name);
    const isRead = this.#places.delete(name);
    if (this.#isOfPrefix(name)) {
      this.#removed.add(name);
      if (isRead) this.#ended.set(name, place);
    } else if (isRead || isAdded) {
      this.#change();
    }
  }

  get #isDone() {
    return !this.#places.size && !this.#added.size && !this.#prefixes.length;
  }

  #change() {
    this.#changing ??= setTimeout(() => this.#reconnect(), TOGETHER_MS);
  }

  // Makes a connection for what has changed. Changes that come one after the other would otherwise
  // end each connection before it has brought anything.
  #reconnect() {
    const left = this.#isDone ? 0 : this.#busyUntil - performance.now();
    this.#changing = left > 0 ? setTimeout(() => this.#reconnect(), left) : null;
    if (this.#changing) return;
    this.#busyUntil = performance.now() + CONNECTING_MS;
    this.#restart.abort();
  }

  #connected(now) {
    const time = performance.now();
    if (this.#busyUntil > time) this.#busyUntil = now.state === "open" ? time + SETTLED_MS : 0;
    if (this.#changing) {
      clearTimeout(this.#changing);
      this.#changing = null;
      this.#change();
    }
    this.#options.onConnection?.(now);
  }

  async *#read() {
    const restarts = () => (this.#restart = new AbortController()).signal;
    const onConnection = (now) => this.#connected(now);
    const options = { ...this.#options, signal: this.#own.signal, restarts, onConnection };
    try {
      for await (const { event, data } of readFrames(this.#http, () => this.#request(), options)) {
        if (!event || !this.#isWanted(event)) continue;
        Object.defineProperty(event, SIZE, { value: data.length });
        yield event;
        if (this.#isDone) return;
      }
    } catch (problem) {
      if (problem !== CLOSED) throw problem;
    } finally {
      clearTimeout(this.#changing);
      this.#own.abort(CLOSED);
    }
  }

  // Begins to wait for streams that do not exist.
  #wait() {
    this.#until = performance.now() + (this.#options.wait ?? 0) * 1000;
  }

  // Returns nothing if there is nothing left to read.
  #request() {
    if (this.#isDone) return null;
    this.#connections++;
    if (this.#added.size) this.#wait();
    for (const [name, place] of this.#added) {
      this.#places.set(name, place);
      this.#ended.delete(name);
      this.#removed.delete(name);
    }
    this.#added.clear();
    const { from, wait } = this.#options;
    const left = Math.max(Math.ceil((this.#until - performance.now()) / 1000), 0);
    const names = [...this.#places.keys()];
    return {
      url: this.#http.address("events"),
      method: "POST",
      body: JSON.stringify({
        streams: names.filter((name) => !this.#isOfPrefix(name)),
        prefixes: this.#prefixes, from, after: this.places,
        wait: wait === undefined ? undefined : Math.min(left, MOST_WAIT_SECONDS),
      }),
    };
  }

  // Whether a program gets an event; notes the place.
  #isWanted(event) {
    const { stream, place } = event;
    if (stream === undefined) return event.event === "error"; // of a prefix
    if (this.#removed.has(stream)) return false;
    if (!this.#places.has(stream)) {
      if (!this.#isOfPrefix(stream)) return false;
      const beganAgain = event.state === "OPEN" || event.event === "error";
      if (this.#ended.has(stream) && !beganAgain) return false;
      this.#ended.delete(stream);
      this.#places.set(stream, "");
    }
    if (event.event === "error") {
      if (!event.retryable) this.#places.delete(stream);
      return true;
    }
    // It began after the connection did: a place that we have is of a former stream of that name.
    if (event.is_new && !offsetOf(place)) this.#places.set(stream, "");
    const had = this.#places.get(stream);
    if (event.state === "ENDED") this.#end(stream, place);
    if (event.event !== "stream") {
      if (!(event.offset > offsetOf(had))) return false;
      event.id = place;
    }
    if (event.event === "end") {
      this.#end(stream, place);
    } else if (this.#places.has(stream) && offsetOf(place) >= offsetOf(had)) {
      this.#places.set(stream, place);
    }
    return true;
  }

  #end(stream, place) {
    this.#places.delete(stream);
    if (this.#isOfPrefix(stream)) this.#ended.set(stream, place);
  }

  #isOfPrefix(name) {
    return this.#prefixes.some((prefix) => name.startsWith(prefix));
  }
}

const CLOSED = new Error("the subscription was closed");
