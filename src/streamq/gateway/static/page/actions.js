// Does what somebody wants with a stream: copy, download, stop.

import { announce, at, make, toast } from "./dom.js";
import { shown } from "./names.js";
import { gateway } from "./session.js";
import { output, watchedStream } from "./stream.js";

const STOP_SECONDS = 10;

let toStop = null; // what the dialog asks about, also if another stream is shown meanwhile

export function start() {
  at("copy").addEventListener("click", copy);
  at("download-text").addEventListener("click", () => download("txt", "text/plain", storyText));
  at("download-json").addEventListener("click", () => download("json", "application/json", storyJson));
  at("view").addEventListener("change", () => output.show(at("view").value));
  at("stop").addEventListener("click", askToStop);
  at("stop-cancel").addEventListener("click", () => at("stop-dialog").close());
  at("stop-form").addEventListener("submit", (event) => {
    event.preventDefault();
    at("stop-dialog").close();
    stop();
  });
  at("download").addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || !at("download").open) return;
    event.stopPropagation();
    closeMenu();
  });
  document.addEventListener("click", (event) => {
    if (!at("download").contains(event.target)) at("download").open = false;
  });
}

function closeMenu() {
  at("download").open = false;
  at("download").querySelector("summary").focus();
}

// ---- the final story ----------------------------------------------------------------------------

async function story() {
  return gateway().story(watchedStream().name, { timeoutSeconds: 300 });
}

// Text as it is, each other value on a line of its own.
function storyText({ values }) {
  let text = "";
  for (const value of values) {
    if (typeof value === "string") {
      text += value;
      continue;
    }
    const other = value instanceof Uint8Array ? ofBytes(value) : JSON.stringify(value, plainNumber);
    text += (text && !text.endsWith("\n") ? "\n" : "") + other + "\n";
  }
  return text;
}

function ofBytes(bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    let binary = "";
    for (const byte of bytes) binary += String.fromCharCode(byte);
    return "base64:" + btoa(binary);
  }
}

function storyJson({ tenant, name, attempt, offset, state, seal, gaps, chunks }) {
  const plain = chunks.map(({ bytes: _bytes, ...chunk }) => chunk);
  return JSON.stringify({ tenant, name, attempt, offset, state, seal, gaps, chunks: plain },
    plainNumber, 1);
}

function plainNumber(_key, value) {
  return typeof value === "number" && !Number.isFinite(value) ? String(value) : value;
}

async function copy() {
  if (!watchedStream()) return;
  try {
    await toClipboard(story().then(storyText));
    toast("Copied.");
  } catch (problem) {
    failed("could not be copied", problem);
  }
}

async function toClipboard(promise) {
  if (navigator.clipboard && globalThis.ClipboardItem) {
    const blob = promise.then((text) => new Blob([text], { type: "text/plain" }));
    await navigator.clipboard.write([new ClipboardItem({ "text/plain": blob })]);
    return;
  }
  const area = make("textarea", { value: await promise, className: "unseen" }); // without HTTPS
  document.body.append(area);
  area.select();
  const isCopied = document.execCommand("copy");
  area.remove();
  if (!isCopied) throw new Error("the browser does not permit it");
}

async function download(ending, type, make_) {
  closeMenu();
  if (!watchedStream()) return;
  try {
    announce("Getting the whole stream…");
    const name = watchedStream().name;
    const blob = new Blob([make_(await story())], { type });
    const url = URL.createObjectURL(blob);
    make("a", { href: url, download: fileName(name, ending) }).click();
    setTimeout(() => URL.revokeObjectURL(url), 60_000);
    toast(`Downloaded ${fileName(name, ending)}.`);
  } catch (problem) {
    failed("could not be downloaded", problem);
  }
}

function fileName(name, ending) {
  const safe = name.replace(/[^\p{L}\p{N}._-]+/gu, "_").replace(/^[._]+/, "").slice(-80);
  return `${safe || "stream"}.${ending}`;
}

function failed(what, problem) {
  toast(`The stream ${what}: ${problem.message || problem}.`);
}

// ---- stopping -----------------------------------------------------------------------------------

export function askToStop() {
  const w = watchedStream();
  if (!w || at("stop").hidden) return;
  toStop = w.name;
  const { kind, id } = w.status.execution;
  at("stop-what").textContent = `This cancels the ${kind} ${shown(id)} in Temporal. ` +
    "All its streams end, not only this one, and it does not begin again by itself.";
  at("stop-dialog").showModal();
  at("stop-cancel").focus();
}

async function stop() {
  at("stop").disabled = true;
  toast("Asking it to stop…");
  try {
    const { state } = await gateway().stop(toStop, { wait: STOP_SECONDS });
    toast(state === "OPEN" || state === "ABSENT"
      ? "It was asked to stop, and is still at work. The stream ends when it has stopped."
      : `It has stopped: ${state}.`);
  } catch (problem) {
    failed("could not be stopped", problem);
  }
  at("stop").disabled = false;
}
