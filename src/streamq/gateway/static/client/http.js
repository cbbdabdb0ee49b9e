// Sends requests to a gateway: addresses, the token, what passes by itself.
// Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { Tokens } from "./tokens.js";
import { parse } from "./values.js";
import { Pace, pause, unlessAborted } from "./waiting.js";

export const ANSWER_MS = 60_000; // a gateway that has much to do answers within 50 s
export const MOST_REFUSALS = 3; // of tokens, one after the other

export class Http {
  #base;
  #credentials;

  constructor(base, { tenant, token, credentials = "same-origin", integers = "bigint",
    silenceSeconds = 40 } = {}) {
    this.#base = baseOf(base, tenant);
    this.#credentials = credentials;
    if (!["bigint", "string", "number"].includes(integers) && typeof integers !== "function") {
      throw new GatewayError("bad_request", `integers is ${JSON.stringify(integers)}; give "bigint", ` +
        `"string", "number", or a function of their digits`);
    }
    this.integers = integers;
    this.silenceMs = silenceSeconds * 1000;
    this.tokens = new Tokens(token);
  }

  // Returns the address of a stream, or without a name that of a list. It escapes a name as a whole
  // only if it could be mistaken for another (a/../b, a//b): some proxies reject %2F.
  address(verb, name, query = {}) {
    const url = new URL(this.#base + verb + (name === undefined ? "" : "/" + escaped(verb, name)));
    for (const [key, value] of Object.entries(query)) {
      if (value !== undefined && value !== "") url.searchParams.set(key, value);
    }
    return url;
  }

  // Sends a request once. Returns its answer, if it is a success, and the token that it had.
  async send(url, { method = "GET", body, accept = "application/json", signal }) {
    const headers = { Accept: accept };
    const token = await unlessAborted(this.tokens.current(), signal);
    if (token) headers.Authorization = `Bearer ${token}`;
    let response;
    try {
      response = await fetch(url, {
        method, body, headers, signal, cache: "no-store", credentials: this.#credentials,
      });
    } catch (cause) {
      signal.throwIfAborted();
      throw new GatewayError("unreachable", `${url.origin} cannot be reached, or does not permit ` +
        "this page to read (CORS, STREAMQ_GATEWAY_ORIGINS of the gateway); the console, or " +
        "`cause`, has the reason", { retryable: true, cause });
    }
    if (response.ok) return { response, token };
    const problem = await GatewayError.of(response);
    if (problem.status === 401) this.tokens.refuse(token);
    throw problem;
  }

  // Sends a request until it has an answer, as long as that can help; returns it as data.
  async ask(method, url, { signal, timeoutSeconds = 30 } = {}) {
    const own = linked(signal), pace = new Pace();
    let refusals = 0;
    const until = performance.now() + timeoutSeconds * 1000;
    const timer = setTimeout(() => own.abort(lateError(url, timeoutSeconds)),
      Math.min(timeoutSeconds * 1000, 2 ** 31 - 1)); // a longer timer would be over at once
    try {
      for (;;) {
        try {
          const { response } = await this.send(url, { method, signal: own.signal });
          return this.#data(response, await response.text().catch(cut));
        } catch (problem) {
          own.signal.throwIfAborted();
          if (isTokenProblem(problem)) refusals++;
          if (!mayPass(problem, refusals, this.tokens)) throw problem;
          const ms = refusals === 1 && problem.status === 401 ? 0 : pace.next(problem.pause);
          if (performance.now() + ms > until) throw problem;
          await pause(ms, own.signal);
          own.signal.throwIfAborted();
        }
      }
    } finally {
      clearTimeout(timer);
      own.unlink();
    }
  }

  #data(response, text) {
    try {
      return parse(text, this.integers);
    } catch (cause) {
      const type = response.headers.get("content-type") ?? "nothing";
      throw new GatewayError("bad_response", `${response.url} answers with ${type} and not with ` +
        "JSON: is this the address of a gateway?", { status: response.status, cause });
    }
  }
}

// Whether a token was refused, or could not be had.
export function isTokenProblem(problem) {
  return problem.status === 401 || problem.code === "token_failed";
}

// Whether another try can help.
export function mayPass(problem, refusals, tokens) {
  if (!(problem instanceof GatewayError)) return false;
  return isTokenProblem(problem) ? tokens.isRenewable && refusals < MOST_REFUSALS : problem.retryable;
}

// Returns a controller that another signal aborts, too.
export function linked(signal) {
  const own = new AbortController();
  const abort = () => own.abort(signal.reason);
  if (signal?.aborted) abort();
  signal?.addEventListener("abort", abort);
  own.unlink = () => signal?.removeEventListener("abort", abort);
  return own;
}

// Reports a body that does not come to its end.
export function cut(cause) {
  throw new GatewayError("connection_lost", "the connection was cut", { retryable: true, cause });
}

function lateError(url, seconds) {
  return new GatewayError("timeout", `${url.origin} did not answer within ${seconds} s`,
    { retryable: true });
}

function baseOf(base, tenant) {
  let url;
  try {
    url = new URL(base, globalThis.document?.baseURI ?? globalThis.location?.href);
  } catch {
    url = null;
  }
  if (!url || !/^https?:$/.test(url.protocol)) {
    throw new GatewayError("bad_request", `the address of the gateway is ${JSON.stringify(String(base))}; ` +
      "give one as https://streams.example.org/");
  }
  if (url.username || url.password) {
    throw new GatewayError("bad_request", "the address of the gateway has a password; browsers " +
      "refuse such addresses: give it without");
  }
  const path = url.pathname.endsWith("/") ? url.pathname : url.pathname + "/";
  return url.origin + path + (tenant === undefined ? "" : `t/${encodeURIComponent(tenant)}/`);
}

function escaped(verb, name) {
  if (typeof name !== "string" || name === "" || name === "." || name === "..") {
    throw new GatewayError("bad_request", `${JSON.stringify(name)} is no name of a stream that has ` +
      "an address");
  }
  const parts = name.split("/");
  const isRisky = parts.some((part) => part === "" || part === "." || part === "..")
    || verb === "streams" && name.endsWith("/events");
  try {
    return isRisky ? encodeURIComponent(name) : parts.map(encodeURIComponent).join("/");
  } catch {
    throw new GatewayError("bad_request", "the name of a stream has half of a character");
  }
}
