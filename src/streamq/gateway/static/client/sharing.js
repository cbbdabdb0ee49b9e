// Reads several streams for several readers over one connection.
// Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { SIZE, Subscription } from "./many.js";
import { offsetOf, readOne } from "./reading.js";

const MOST_EVENTS = 1000; // that wait for a slow reader
const MOST_CHARACTERS = 2 ** 22; // of these events together; one alone may have more
const WAIT_SECONDS = Infinity; // of the connection; each reader knows how long it waits itself
const ALONE = new Error("this stream needs a connection of its own");

// The readers of one gateway that begin at the same kind of place.
export class Sharing {
  #http;
  #from;
  #readers = new Map(); // by the name of the stream: a set of readers
  #subscription = null;

  constructor(http, from) {
    this.#http = http;
    this.#from = from;
  }

  // Yields the events of a stream, as `readOne` does.
  async *read(name, options) {
    const reader = new Reader(name, options);
    const readers = this.#readers.get(name) ?? new Set();
    this.#readers.set(name, readers.add(reader));
    try {
      this.#ask(name, reader);
      for (;;) {
        if (reader.isBehind && reader.isEmpty) {
          reader.isBehind = false;
          this.#ask(name, reader);
        }
        const event = await reader.next();
        if (!event) return;
        yield event;
        if (event.event === "end") return;
      }
    } catch (problem) {
      if (problem !== ALONE) throw problem;
      reader.close();
      const { place } = reader;
      yield* readOne(this.#http, name, { ...options, ...place ? { after: place } : { from: this.#from } });
    } finally {
      reader.close();
      readers.delete(reader);
      if (!readers.size && this.#readers.get(name) === readers) {
        this.#readers.delete(name);
        this.#subscription?.remove(name);
      }
    }
  }

  // Has a stream read from the earliest place of its readers on, with the next connection. What the
  // present one still brings is too late for a reader that comes.
  #ask(name, reader) {
    const after = this.#earliest(name);
    if (reader) reader.since = (this.#subscription?.connections ?? 0) + 1;
    if (this.#subscription) {
      this.#subscription.add(name, { after });
      return;
    }
    this.#subscription = new Subscription(this.#http, [name], {
      from: this.#from, wait: WAIT_SECONDS, after: { [name]: after },
      onConnection: (now) => this.#each((reader) => reader.hear(now)),
    });
    this.#pump(this.#subscription);
  }

  #earliest(name) {
    const places = [...this.#readers.get(name)].filter((reader) => !reader.isBehind)
      .map((reader) => reader.place);
    if (this.#from === "tail") return places.find(Boolean) ?? "";
    return places.reduce((a, b) => offsetOf(a) <= offsetOf(b) ? a : b);
  }

  // Distributes events. It never fails: its readers get the error.
  async #pump(subscription) {
    let problem = null;
    try {
      for await (const event of subscription) this.#give(event);
    } catch (caught) {
      problem = caught;
    }
    this.#subscription = null;
    // The gateway answers so if all streams fail: it is the error of one of them, at the place of
    // one of its readers.
    const readers = [...this.#readers.values()].reduce((sum, each) => sum + each.size, 0);
    if (readers > 1 && [403, 404, 409].includes(problem?.status)) problem = ALONE;
    const { connections } = subscription;
    this.#each((reader) => {
      if (problem) reader.fail(problem);
      else if (reader.since <= connections) reader.fail(ALONE); // has its end, or a hidden error
    });
    for (const name of this.#readers.keys()) this.#again(name); // they came meanwhile
  }

  #give(event) {
    const { connections } = this.#subscription;
    for (const reader of this.#readers.get(event.stream) ?? []) {
      if (connections >= reader.since) reader.take(event);
    }
    if (event.event === "error" && !event.retryable) this.#again(event.stream);
  }

  // Goes on with a stream whose readers wait for more than what has ended.
  #again(name) {
    for (const reader of this.#readers.get(name) ?? []) {
      if (!reader.isOver && !reader.isBehind) this.#ask(name, reader);
    }
  }

  #each(call) {
    for (const readers of this.#readers.values()) for (const reader of readers) call(reader);
  }
}

// Holds events for one reader.
class Reader {
  place;
  since = 0; // number of the connection that it takes events of
  isBehind = false; // whether events came that it did not take
  isOver = false; // whether nothing more comes
  #name;
  #options;
  #events = [];
  #characters = 0;
  #problem = null;
  #wake = null;
  #timer = null;
  #has;

  constructor(name, options) {
    this.#name = name;
    this.#options = options;
    this.place = options.after ?? "";
    this.#has = this.place !== "";
    const { wait, signal } = options;
    if (wait !== undefined && !this.#has && wait < 2 ** 31 / 1000) {
      this.#timer = setTimeout(() => this.#miss(), wait * 1000);
    }
    if (signal?.aborted) this.#abort();
    signal?.addEventListener("abort", this.#abort);
  }

  get isEmpty() {
    return this.#events.length === 0;
  }

  async next() {
    while (this.isEmpty || this.#problem?.isAbort) {
      if (this.#problem) throw this.#problem.reason;
      if (this.isOver) return null;
      await new Promise((resolve) => { this.#wake = resolve; });
    }
    const event = this.#events.shift();
    this.#characters -= event[SIZE];
    return event;
  }

  take(event) {
    if (this.isOver || this.isBehind) return;
    if (event.event === "stream") this.#appear(event);
    else if (event.event === "error") this.#error(event);
    else this.#put(event);
  }

  hear(now) {
    try {
      this.#options.onConnection?.(now);
    } catch (problem) { // of this reader only
      this.fail(problem);
    }
  }

  fail(problem) {
    if (this.isOver) return;
    this.isOver = true;
    this.#settle({ reason: problem });
  }

  close() {
    this.isOver = true;
    clearTimeout(this.#timer);
    this.#options.signal?.removeEventListener("abort", this.#abort);
  }

  #abort = () => {
    this.isOver = true;
    this.#settle({ reason: this.#options.signal.reason, isAbort: true });
  };

  #settle(problem) {
    clearTimeout(this.#timer);
    this.#problem = problem;
    this.#wake?.();
  }

  #appear({ state, place }) {
    if (state === "ABSENT") {
      if (this.#options.wait === undefined || this.#has) this.#miss();
      return;
    }
    if (state === "ENDED") this.#finish();
    clearTimeout(this.#timer);
    this.place ||= offsetOf(place) ? place : "";
  }

  // It has the end already.
  #finish() {
    this.isOver = true;
    this.#wake?.();
  }

  #miss() {
    this.fail(new GatewayError("stream_not_found", `there is no stream ${this.#name}`,
      { status: 404, stream: this.#name }));
  }

  #error(event) {
    const waits = event.error === "stream_not_found" && !this.#has && this.#timer !== null;
    if (event.retryable || waits || this.#isEndless(event)) return;
    this.fail(GatewayError.ofEvent(event));
  }

  // Whether it waits for a stream without end.
  #isEndless(event) {
    return event.error === "stream_not_found" && !this.#has && this.#options.wait === Infinity;
  }

  #put(event) {
    const last = offsetOf(this.place);
    if (event.offset <= last) { // another reader of this stream began before
      const isLast = event.offset === last;
      const isOther = isLast && /@/.test(this.place) && /@/.test(event.id) && event.id !== this.place;
      if (isOther || event.event === "end" && !isLast) this.fail(beganAgain(this.#name));
      else if (event.event === "end") this.#finish();
      return;
    }
    const characters = this.#characters + event[SIZE];
    if (this.#events.length >= MOST_EVENTS || characters > MOST_CHARACTERS && !this.isEmpty) {
      this.isBehind = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#has = true;
    this.place = event.id;
    this.isOver = event.event === "end";
    this.#events.push(event);
    this.#characters = characters;
    this.#wake?.();
  }
}

function beganAgain(name) {
  return new GatewayError("cursor", `the stream ${name} was deleted and began again: read it from ` +
    "its beginning", { status: 409, stream: name });
}
