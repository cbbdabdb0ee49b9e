// Reads streams of a streamq gateway: in browsers, Node 18 and newer, Deno and Bun; without a build.
//
//   import { Gateway } from "https://streams.example.org/client.js";
//   const gateway = new Gateway("https://streams.example.org", { token: async () => "..." });
//   for await (const event of gateway.events("name")) console.log(event.value);
//
// A copy needs the folder client/ beside it. Documentation: docs/javascript.md of streamq.
// Design: docs/design/javascript-client.md.
// @ts-self-types="./client.d.ts"

import { GatewayError } from "./client/errors.js";
import { Http } from "./client/http.js";
import { readOne } from "./client/reading.js";
import { readStory } from "./client/story.js";
import { parse } from "./client/values.js";

export { GatewayError, parse };

const MOST_STOP_SECONDS = 60; // that the gateway waits

export class Gateway {
  #http;

  constructor(url = new URL(".", import.meta.url), options = {}) {
    this.#http = new Http(url, options);
  }

  // Yields the events of a stream: chunk, reset, gap, end. Reconnects by itself.
  events(name, options = {}) {
    checkStart(options);
    return readOne(this.#http, name, options);
  }

  // Returns the last attempt as it is stored now: text, values, chunks, state.
  story(name, options = {}) {
    return readStory(this.#http, name, options);
  }

  // Stops what writes a stream, and waits up to `wait` seconds for its end.
  stop(name, { wait = 10, signal } = {}) {
    const url = this.#http.address("cancel", name, { wait: Math.min(wait, MOST_STOP_SECONDS) });
    return this.#http.ask("POST", url, { signal, timeoutSeconds: wait + 30 });
  }

  // Returns where a stream stands.
  status(name, { signal } = {}) {
    return this.#http.ask("GET", this.#http.address("streams", name), { signal });
  }

  // Returns {streams, is_complete}.
  list({ prefix, limit, signal } = {}) {
    return this.#http.ask("GET", this.#http.address("streams", undefined, { prefix, limit }), { signal });
  }
}

function checkStart({ from, after }) {
  if (from !== undefined && after !== undefined) {
    throw new GatewayError("bad_request", "`from` and `after` exclude each other; give one of them");
  }
}
