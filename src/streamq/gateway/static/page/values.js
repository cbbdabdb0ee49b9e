// Shows the values of chunks that are no text: JSON, bytes, and what the gateway could not decode.

import { make } from "./dom.js";
import { clipped, jsonElement } from "./tree.js";

const NO_TEXT = /[\0-\x08\x0b\x0c\x0e-\x1a\x1c-\x1f\x7f]/;
const MOST_BYTES_SHOWN = 64;
const OPEN_VALUES = 3; // the first values of an attempt are opened

export class Values {
  constructor(output) {
    this.output = output;
    this.begin();
  }

  begin() {
    this.decoder = newDecoder();
    this.tail = []; // bytes of a character that the last chunk has begun
    this.opened = 0;
  }

  add(chunk) {
    if (chunk.undecoded) {
      this.end();
      const { encoding, message_type: type, size_bytes: size, reason } = chunk.undecoded;
      const data = chunk.payload || chunk.base64 || "";
      this.#line(`${[encoding, type].filter(Boolean).join(" ")} · ${size} bytes · ${reason}  ` +
        clipped(data, MOST_BYTES_SHOWN));
    } else if (chunk.base64 !== undefined) {
      this.#bytes(chunk.base64);
    } else if (typeof chunk.value === "string") {
      this.end();
      this.output.text(chunk.value);
    } else {
      this.end();
      this.output.row(...jsonElement(chunk.value, this.opened++ < OPEN_VALUES));
    }
  }

  // Shows the beginning of a character that never came to its end.
  end() {
    if (!this.tail.length) return;
    this.#bytesLine(btoa(String.fromCharCode(...this.tail)));
    this.tail = [];
    this.decoder = newDecoder();
  }

  // Bytes that are text are shown as text, also if a chunk ends in the middle of a character.
  #bytes(base64) {
    const data = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
    const all = [...this.tail, ...data];
    let text = null;
    try {
      text = this.decoder.decode(data, { stream: true });
    } catch {
      text = null;
    }
    if (text === null || NO_TEXT.test(text)) {
      this.end();
      this.decoder = newDecoder();
      this.#bytesLine(base64);
      return;
    }
    const left = all.length - new TextEncoder().encode(text).length;
    this.tail = left ? all.slice(-left) : [];
    this.output.see(text);
    this.output.text(text);
  }

  #bytesLine(base64) {
    const size = base64.length / 4 * 3 - (base64.endsWith("==") ? 2 : base64.endsWith("=") ? 1 : 0);
    this.#line(`${size} bytes  ${clipped(base64, MOST_BYTES_SHOWN)}`);
  }

  #line(text) {
    this.output.row(make("div", { className: "bytes" }, text), text.length);
  }
}

function newDecoder() {
  return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
}
