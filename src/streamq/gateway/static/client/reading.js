// Reads one stream over as many connections as it takes. Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { Frames } from "./frames.js";
import { ANSWER_MS, cut, isTokenProblem, linked, mayPass } from "./http.js";
import { complete, parse } from "./values.js";
import { Pace, pause, Watchdog } from "./waiting.js";

const MOST_WAIT_SECONDS = 300; // of one request
const ORDERLY = ["max_age", "token_expired"]; // no reason to wait before the next connection
const OF_CONNECTION = ["error", "reconnect", "token"]; // events that are always read
const NO_RESTART = new AbortController().signal;

// Yields the events of a stream, each once; the last one is its "end".
export async function* readOne(http, name, options) {
  const { from, after = "", wait, signal } = options;
  let place = after, last = offsetOf(after), has = after !== "";
  const until = performance.now() + (wait ?? 0) * 1000;
  const leftSeconds = () => Math.max(Math.ceil((until - performance.now()) / 1000), 0);
  const request = () => ({
    url: http.address("events", name, {
      after: place, from: place ? undefined : from,
      wait: wait === undefined || has ? undefined : Math.min(leftSeconds(), MOST_WAIT_SECONDS),
    }),
  });
  const isPassing = (problem) => !has && problem.code === "stream_not_found" && leftSeconds() > 0;
  for await (const frame of readFrames(http, request, { ...options, isPassing, signal })) {
    place = frame.id ?? place;
    const { event } = frame;
    if (!event || !(event.offset > last)) {
      last = event ? last : Math.max(last, offsetOf(place));
      continue;
    }
    has = true;
    last = event.offset;
    event.id = place;
    yield event;
    if (event.event === "end") return;
  }
}

// Returns the number that a place begins with.
export function offsetOf(place) {
  return place ? Number(place.split("@")[0]) : 0;
}

// Yields {id, event} of one connection after the other, until the gateway says that there is no
// more (204). `request` is called for each connection, and knows the places; it returns nothing if
// nothing is left to read. What concerns the connection is dealt with here: renewal of the token,
// pauses, silence, errors that pass.
export async function* readFrames(http, request, options) {
  const { signal, patienceSeconds = Infinity, isPassing = () => false, onConnection } = options;
  const pace = new Pace();
  let refusals = 0, connected = performance.now();
  for (;;) {
    const restart = options.restarts?.() ?? NO_RESTART; // aborted for a connection with other streams
    const asked = request();
    if (!asked) return;
    let problem = null, isOrderly = false, opened = null;
    try {
      for await (const frame of readResponse(http, asked, options, restart)) {
        if (frame.isOpen) {
          refusals = 0;
          opened = performance.now();
          onConnection?.({ state: "open", problem: null });
          continue;
        }
        if (frame.retry > 0) pace.retryMs = frame.retry;
        const { event, name } = frame;
        if (name === "error" && event.stream === undefined && event.prefix === undefined) {
          throw GatewayError.ofEvent(event);
        }
        if (name === "revoked") {
          throw new GatewayError("revoked", "the token was revoked");
        }
        if (name === "reconnect") {
          const { reason } = event;
          isOrderly = ORDERLY.includes(reason);
          problem = new GatewayError(reason, `the gateway ends this connection: ${reason}`,
            { retryable: true });
          if (reason === "token_expired") http.tokens.end(frame.token);
        } else if (name !== "token") {
          if (event) pace.succeed();
          yield frame;
        }
      }
      if (restart.aborted) continue;
      if (!problem) {
        problem = new GatewayError("connection_lost", "the connection ended", { retryable: true });
      }
    } catch (caught) {
      signal?.throwIfAborted();
      if (restart.aborted) continue;
      if (caught === ENDED) return;
      problem = caught;
      if (isTokenProblem(problem)) refusals++;
      if (!mayPass(problem, refusals, http.tokens) && !isPassing(problem)) throw problem;
      isOrderly = problem.status === 401 && refusals === 1;
    }
    if (opened !== null) {
      connected = performance.now();
      if (connected - opened > pace.retryMs) pace.succeed();
    }
    if (performance.now() - connected > patienceSeconds * 1000) throw problem;
    const ms = isOrderly ? 0 : pace.next(problem.pause);
    if (!isOrderly) onConnection?.({ state: "reconnecting", problem });
    await pause(ms, signal, restart);
    signal?.throwIfAborted();
  }
}

const ENDED = Symbol("the answer was 204");

// Yields {isOpen} and then the frames of one response, with what they contain.
async function* readResponse(http, { url, method, body }, { signal, onUnreadable }, restart) {
  const own = linked(signal);
  const stop = () => own.abort(restart.reason);
  restart.addEventListener("abort", stop);
  const lost = () => own.abort(new GatewayError("connection_lost",
    "nothing has come for a while, not even what keeps the connection alive", { retryable: true }));
  const watchdog = new Watchdog(lost);
  globalThis.addEventListener?.("online", lost); // another network: the old connection may be dead
  let reader = null, stopRenewal = () => {};
  try {
    watchdog.expect(ANSWER_MS);
    const { response, token } = await http.send(url,
      { method, body, accept: "text/event-stream", signal: own.signal });
    if (response.status === 204) throw ENDED;
    const type = response.headers.get("content-type") ?? "nothing";
    if (!type.startsWith("text/event-stream")) {
      throw new GatewayError("bad_response", `${url.origin}${url.pathname} answers with ${type} and ` +
        "not with events: is this the address of a gateway?", { status: response.status });
    }
    yield { isOpen: true };
    reader = response.body.getReader();
    const decoder = new TextDecoder(), frames = new Frames();
    for (;;) {
      watchdog.expect(http.silenceMs);
      const { done, value } = await reader.read();
      watchdog.rest(); // while the program that reads is busy, nothing is expected
      if (done) return;
      for (const frame of frames.push(decoder.decode(value, { stream: true }))) {
        const report = OF_CONNECTION.includes(frame.name) ? undefined : onUnreadable;
        frame.event = frame.data === undefined ? null : eventOf(frame.data, http.integers, report);
        frame.token = token;
        if (frame.name === "token") {
          stopRenewal();
          stopRenewal = http.tokens.endsIn(token, frame.event.expires_in_seconds);
        }
        yield frame;
        if (own.signal.aborted) throw own.signal.reason; // while the program had the event
      }
    }
  } catch (problem) {
    if (own.signal.aborted) throw own.signal.reason;
    if (problem instanceof GatewayError || problem === ENDED) throw problem;
    cut(problem);
  } finally {
    watchdog.stop();
    stopRenewal();
    globalThis.removeEventListener?.("online", lost);
    restart.removeEventListener("abort", stop);
    own.unlink();
    own.abort(); // closes the connection if something of it is left
  }
}

function eventOf(text, integers, onUnreadable) {
  try {
    return complete(parse(text, integers));
  } catch (cause) {
    if (onUnreadable) { // one event that cannot be read must not hide the others
      onUnreadable(text);
      return null;
    }
    throw new GatewayError("bad_response", "an event is no JSON", { cause });
  }
}
