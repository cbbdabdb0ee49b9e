// @ts-self-types="./client.d.ts"
// Reads streams of a streamq gateway: in browsers, Node 18 and newer, Deno and Bun; without a build.
//
//   import { Gateway } from "https://streams.example.org/client.js";
//   const gateway = new Gateway("https://streams.example.org", { token: async () => "..." });
//   for await (const event of gateway.events("name")) console.log(event.value);
//
// A copy needs the folder client/ beside it. Documentation: docs/javascript.md of streamq.
// Design: docs/design/javascript-client.md.

import { GatewayError } from "./client/errors.js";
import { Http } from "./client/http.js";
import { Subscription } from "./client/many.js";
import { readOne } from "./client/reading.js";
import { Sharing } from "./client/sharing.js";
import { readStory } from "./client/story.js";
import { parse } from "./client/values.js";
import { StreamView, viewsOf } from "./client/view.js";

export { GatewayError, parse };

const HERE = import.meta.url.replace(/[^/]*$/, ""); // not new URL(): bundlers look for a file then
const MOST_STOP_SECONDS = 60; // that the gateway waits

export class Gateway {
  #http;
  #isShared;
  #sharing = new Map(); // by where its readers begin

  constructor(url = HERE, { share = false, ...options } = {}) {
    this.#http = new Http(url, options);
    this.#isShared = share;
  }

  // Yields the events of a stream: chunk, reset, gap, end. Reconnects by itself. Of a list of
  // streams, or of prefixes, it yields all events, over one connection.
  events(names, options = {}) {
    if (Array.isArray(names)) return new Subscription(this.#http, names, options);
    const { from = "beginning", after, share = this.#isShared } = options;
    if (options.from !== undefined && after !== undefined) {
      throw new GatewayError("bad_request", "`from` and `after` exclude each other; give one of them");
    }
    if (!share || from === "last") return readOne(this.#http, names, options);
    if (!this.#sharing.has(from)) this.#sharing.set(from, new Sharing(this.#http, from));
    return this.#sharing.get(from).read(names, options);
  }

  // Returns what an application shows of a stream, and says when that changes.
  view(name, options = {}) {
    return new StreamView(name, options, (...of) => this.events(...of), (...of) => this.stop(...of));
  }

  // Calls a function with what is to be shown of a stream: now, and whenever it changes.
  show(name, listener, options = {}) {
    const view = this.view(name, options);
    listener(view.current); // if that fails, nothing is open yet
    view.subscribe(listener);
    return view;
  }

  // Yields what is to be shown of a stream whenever it has changed; the last one says how it ended.
  views(name, options = {}) {
    const { signal, ...others } = options;
    return viewsOf(this.view(name, others), signal);
  }

  // Returns the last attempt as it is stored now: text, values, chunks, state.
  story(name, options = {}) {
    return readStory(this.#http, name, options);
  }

  // Stops what writes a stream, and waits up to `wait` seconds for its end.
  stop(name, { wait = 10, timeoutSeconds = wait + 30, signal } = {}) {
    const url = this.#http.address("cancel", name, { wait: Math.min(wait, MOST_STOP_SECONDS) });
    return this.#http.ask("POST", url, { signal, timeoutSeconds });
  }

  // Returns where a stream stands.
  status(name, options) {
    return this.#http.ask("GET", this.#http.address("streams", name), options);
  }

  // Returns {streams, is_complete}; with `details` also where each stream stands.
  list({ prefix, limit, details, ...options } = {}) {
    const url = this.#http.address("streams", undefined, { prefix, limit, details });
    return this.#http.ask("GET", url, options);
  }
}
