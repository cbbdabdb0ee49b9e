"use strict";

// Shows the values of chunks that are no text. Text from a stream is inserted only with textContent.

// Shows a value that is no text: JSON, bytes, or what the gateway could not decode.
function other(w, chunk) {
  if (chunk.undecoded) {
    endBytes(w);
    const { encoding, message_type: type, size_bytes: size, reason } = chunk.undecoded;
    const data = chunk.payload || chunk.base64 || "";
    line("bytes", `${[encoding, type].filter(Boolean).join(" ")} · ${size} bytes · ${reason}  ` +
      clipped(data), w);
  } else if ("base64" in chunk) {
    bytes(w, chunk.base64);
  } else {
    endBytes(w);
    line("json", pretty(chunk.value), w);
  }
}

// Numbers that JavaScript would round stay as they were written.
function parse(text) {
  if (!JSON.rawJSON || !/\d{16}/.test(text)) return JSON.parse(text);
  return JSON.parse(text, (key, value, context) =>
    typeof value === "number" && !Number.isSafeInteger(value) && /^-?\d+$/.test(context.source)
      ? JSON.rawJSON(context.source) : value);
}

function pretty(value) {
  const short = JSON.stringify(value) || "";
  return short.length <= 100 ? short : JSON.stringify(value, null, 2);
}

// ---- bytes --------------------------------------------------------------------------------------

const NO_TEXT = /[\0-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]/;

function newDecoder() {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
}

// Bytes that are text are shown as text, also if a chunk ends in the middle of a character.
function bytes(w, base64) {
  const data = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
  const all = [...w.tail, ...data];
  let text = null;
  try {
    text = w.bytes.decode(data, { stream: true });
  } catch {
    text = null;
  }
  if (text === null || NO_TEXT.test(text)) {
    endBytes(w);
    w.bytes = newDecoder();
    bytesLine(w, base64);
    return;
  }
  const left = all.length - new TextEncoder().encode(text).length;
  w.tail = left ? all.slice(-left) : [];
  append(w, text);
}

// Shows the beginning of a character that never came to its end.
function endBytes(w) {
  if (!w.tail.length) return;
  bytesLine(w, btoa(String.fromCharCode(...w.tail)));
  w.tail = [];
  w.bytes = newDecoder();
}

function bytesLine(w, base64) {
  const size = base64.length / 4 * 3 - (base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0);
  line("bytes", `${size} bytes  ${clipped(base64)}`, w);
}

function clipped(text) {
  return text.length > 64 ? text.slice(0, 64) + "…" : text;
}
