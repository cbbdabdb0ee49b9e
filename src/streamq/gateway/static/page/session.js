// Holds the token of whoever looks: in memory for the client, and as a cookie for the next visit.
// It is never in an address, nor in a storage that scripts read.

import { Gateway } from "../client.js";
import { at, show } from "./dom.js";
import { duration } from "./names.js";

const WARN_SECONDS = 120;
const TICK_MS = 1000;
const ASK_MS = 60_000; // a gateway that has much to do answers within 50 s
const CLOCKS_SECONDS = 2; // by which the gateway may be earlier than the page
const LONG_INTEGERS = JSON.rawJSON || String; // as they were written, not rounded

export const changes = new EventTarget(); // "token": another one is in use; "logout": none is

let token = null, client = null, takesTokens = false, subject = null;
let endsAt = Infinity; // performance.now() in seconds
let asking = null; // {promise, answer} while the dialog is open
let isWarned = false, hasEnded = false;

// Returns a client with the token of now. It does not renew the token itself: a person does.
export function gateway() {
  client ??= new Gateway(undefined, { token: token ?? undefined, integers: LONG_INTEGERS });
  return client;
}

export const hasToken = () => token !== null;

// Asks the gateway once; returns {code, body}, with code 0 if it does not answer.
export async function ask(path, options = {}) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = "Bearer " + token;
  try {
    const signal = AbortSignal.timeout(ASK_MS);
    const response = await fetch(path, { headers, cache: "no-store", signal, ...options });
    return { code: response.status, body: await response.json().catch(() => null) };
  } catch {
    return { code: 0, body: { message: "The gateway does not answer" } };
  }
}

// Takes from an answer what it says about the token of the request.
export function learn(body) {
  if (!body || body.takes_tokens === undefined) return;
  takesTokens = body.takes_tokens;
  subject = body.token && body.token.subject;
  const left = body.token && body.token.expires_in_seconds;
  endsAt = typeof left === "number" ? now() + left : Infinity;
  if (left > 0) hasEnded = false;
  tick();
}

// Asks for a token, unless that is being done; returns whether there is another one.
export function needToken(problem) {
  if (asking) return asking.promise;
  let answer;
  const promise = new Promise((resolve) => { answer = resolve; });
  asking = { promise, answer };
  takesTokens = true;
  openDialog(problem);
  tick();
  return promise;
}

export function openDialog(problem) {
  const dialog = at("token-dialog");
  const [title, reason] = words(problem);
  at("token-title").textContent = title;
  show("token-reason", reason);
  show("token-error", "");
  at("token").value = "";
  at("log-out").hidden = !(subject || token || problem && problem.code === "invalid_token");
  if (!dialog.open) dialog.showModal();
  at("token").focus();
}

function words(problem) {
  const code = problem && problem.code;
  if (code === "revoked") {
    return ["The token was revoked", "Whoever issued it has taken it back. " +
      "Ask for another one to go on; what is shown stays here."];
  }
  const isOld = hasEnded || endsAt - now() < CLOCKS_SECONDS;
  if (isOld || code === "invalid_token") {
    return [isOld ? "The token has ended" : "The token is not accepted",
      (isOld ? "" : sentence(problem.message) + " ") +
      "Get a new one from where you got the last one; reading goes on where it stopped."];
  }
  if (problem) return ["A token is needed", "This gateway shows streams to those who have a token."];
  return subject ? ["Token", `In use: the token of ${subject}${left() ? ", " + left() : ""}.`]
    : ["Token", "With a token you may see and do more, if it permits that."];
}

function sentence(text) {
  return text ? text[0].toUpperCase() + text.slice(1).replace(/[.:;]?$/, ".") : "";
}

async function use(text) {
  const given = text.trim().replace(/^bearer\s+/i, "");
  if (!/^[\x21-\x7e]+$/.test(given)) {
    show("token-error", given ? "A token has no spaces or line breaks inside. Copy it again."
      : "Paste a token first.");
    return;
  }
  at("token-use").disabled = true;
  const { code, body } = await ask("session",
    { method: "POST", headers: { Accept: "application/json", Authorization: "Bearer " + given } });
  at("token-use").disabled = false;
  if (code === 501) {
    show("token-error", "This gateway takes no tokens.");
    return;
  }
  if (code !== 200 && code !== 400) { // 400: no cookie is safe here, so it stays in memory alone
    show("token-error", sentence(body && body.message || "The gateway refuses it"));
    at("token").select();
    return;
  }
  endsAt = body && body.expires_in_seconds ? now() + body.expires_in_seconds : Infinity;
  hasEnded = false;
  replace(given);
  settle(true);
}

async function logOut() {
  const { code, body } = await ask("session", { method: "DELETE" });
  if (code === 0 || code >= 500) {
    show("token-error", `${sentence(body?.message || "The gateway refuses it")} The cookie is still ` +
      "there; try again.");
    return;
  }
  subject = null;
  endsAt = Infinity;
  hasEnded = false;
  settle(false);
  changes.dispatchEvent(new Event("logout"));
  replace(null);
}

function replace(next) {
  token = next;
  client = null;
  isWarned = false;
  changes.dispatchEvent(new Event("token"));
  tick();
}

// Closes the dialog, and answers those who wait for a token.
function settle(isGiven) {
  at("token-dialog").close();
  if (asking) asking.answer(isGiven);
  asking = null;
}

// ---- the end of the token ---------------------------------------------------------------------

const now = () => performance.now() / 1000;

function left() {
  return endsAt === Infinity ? "" : `ends in ${duration(Math.max(endsAt - now(), 0))}`;
}

function tick() {
  const button = at("token-button");
  button.hidden = !takesTokens;
  const text = subject ? subject : "Token";
  if (button.textContent !== text) button.textContent = text;
  button.title = subject ? `Token of ${subject} ${left()}` : "Give a token";
  const seconds = endsAt - now();
  if (seconds <= 0 && !hasEnded) {
    hasEnded = true;
    notice("Your token has ended.");
  } else if (seconds > 0 && seconds < WARN_SECONDS && !isWarned) {
    isWarned = true;
    notice("Your token ends in less than two minutes. Streams that are open stop then.");
  } else if (seconds >= WARN_SECONDS) {
    notice("");
  }
}

function notice(text) {
  const element = at("session-notice");
  if (element.hidden === !text && element.firstChild?.textContent === text) return;
  show(element, text);
  if (!text) return;
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = "Give a new token";
  button.addEventListener("click", () => openDialog(null));
  element.append(" ", button);
}

export function start() {
  at("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    use(at("token").value);
  });
  at("token").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      use(at("token").value);
    }
  });
  at("token-cancel").addEventListener("click", () => settle(false));
  at("token-dialog").addEventListener("cancel", () => settle(false));
  at("token-dialog").addEventListener("close", () => { at("token").value = ""; });
  at("log-out").addEventListener("click", logOut);
  at("token-button").addEventListener("click", () => openDialog(null));
  setInterval(tick, TICK_MS);
}
