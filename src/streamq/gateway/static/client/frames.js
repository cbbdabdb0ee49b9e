// Splits the text of a response into server-sent events. Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";

const LONGEST = 2 ** 26; // characters of a frame; a chunk may have some megabytes

// Takes text in pieces of any length. What has not come to its blank line is not an event.
export class Frames {
  #line = []; // the pieces of a line that has not ended
  #length = 0;
  #frame = {};

  // Yields {id, name, data, retry} of each frame that the text ends.
  *push(text) {
    this.#length += text.length;
    if (this.#length > LONGEST) {
      throw new GatewayError("bad_response", "an event of more than 64 Mi characters does not end");
    }
    const lines = text.split("\n");
    this.#line.push(lines[0]);
    if (lines.length === 1) return;
    lines[0] = this.#line.join("");
    this.#line = [lines.pop()];
    for (const line of lines) {
      const frame = this.#add(line.endsWith("\r") ? line.slice(0, -1) : line);
      if (!frame) continue;
      this.#length = this.#line[0].length;
      yield frame;
    }
  }

  #add(line) {
    if (line === "") {
      const frame = this.#frame;
      this.#frame = {};
      return frame;
    }
    const colon = line.indexOf(":");
    if (colon <= 0) return null; // a comment
    const value = line.slice(line[colon + 1] === " " ? colon + 2 : colon + 1);
    switch (line.slice(0, colon)) {
      case "id": this.#frame.id = value; break;
      case "event": this.#frame.name = value; break;
      case "data": this.#frame.data = "data" in this.#frame ? `${this.#frame.data}\n${value}` : value;
        break;
      case "retry": this.#frame.retry = Number(value); break;
    }
    return null;
  }
}
