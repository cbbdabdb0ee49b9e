// Keeps the token of a gateway, and gets the next one in time. Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { within } from "./waiting.js";

const MARGIN = 0.1; // part of a token's life that is left when the next one is asked for
const MOST_MARGIN_MS = 30_000;
const ASKING_MS = 30_000;

export class Tokens {
  #source; // a text, or a function that returns one
  #token = null;
  #reason = "first"; // why a token has to be asked for; null while there is a good one
  #endsAt = 0; // by performance.now(), as far as that is known
  #asking = null; // the call of the function that is under way

  constructor(source) {
    if (source !== undefined && source !== null && !["string", "function"].includes(typeof source)) {
      throw new GatewayError("bad_request", `token is of type ${typeof source}; give a function ` +
        "that returns a token, or a promise of one, or a text");
    }
    this.#source = source ?? null;
    if (typeof source === "string") this.#keep(source);
  }

  // Whether another token can be had.
  get isRenewable() {
    return typeof this.#source === "function";
  }

  // Returns a token, or null if requests have none. Concurrent calls share one call of the function.
  async current() {
    if (!this.isRenewable || this.#reason === null) return this.#token;
    if (this.#reason !== "ending") return this.#ask();
    const next = this.#ask().catch(() => this.#token); // the old one may still be good
    return performance.now() < this.#endsAt ? this.#token : next; // a stop button does not wait
  }

  // Reports that the gateway has refused a token: it is asked for anew, unless that has been done.
  refuse(token) {
    if (token === this.#token) this.#reason = "refused";
  }

  // Reports that a token ends in so many seconds, by the gateway's clock. Returns a function that
  // stops what gets the next one in time; a token that has ended is replaced by the next call.
  endsIn(token, seconds) {
    if (!this.isRenewable || token !== this.#token || !(seconds >= 0)) return () => {};
    this.#endsAt = performance.now() + seconds * 1000;
    const margin = Math.min(seconds * 1000 * MARGIN, MOST_MARGIN_MS);
    const timer = setTimeout(() => {
      if (token !== this.#token) return;
      this.#reason ??= "ending";
      this.current().catch(() => {}); // the next connection reports it
    }, Math.min(seconds * 1000 - margin, 2 ** 31 - 1));
    return () => clearTimeout(timer);
  }

  // Reports that a connection ended because its token has.
  end(token) {
    if (token !== this.#token) return;
    this.#reason ??= "ending";
    this.#endsAt = 0;
  }

  #ask() {
    this.#asking ??= this.#call(this.#reason).finally(() => { this.#asking = null; });
    return this.#asking;
  }

  async #call(reason) {
    let token;
    try {
      const asked = Promise.resolve(this.#source({ reason }));
      token = await within(asked, ASKING_MS, () => new Error("it took more than 30 s"));
    } catch (cause) {
      throw new GatewayError("token_failed", "the function that returns the token failed: " +
        (cause instanceof Error ? cause.message : String(cause)), { retryable: true, cause });
    }
    this.#keep(token);
    this.#reason = null;
    this.#endsAt = 0;
    return this.#token;
  }

  // A function that renews a cookie returns nothing.
  #keep(token) {
    if (token === undefined || token === null || token === "") {
      this.#token = null;
      return;
    }
    const text = typeof token === "string" ? token.trim() : null;
    if (text === null || !/^[\x21-\x7e]+$/.test(text)) {
      throw new GatewayError("token_failed", text === null
        ? `a token has to be text, and is of type ${typeof token}`
        : "a token has no spaces and only ASCII characters; give it without the word Bearer");
    }
    this.#token = text;
  }
}
