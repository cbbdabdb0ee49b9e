// Reads what is stored of a stream, page by page. Design: docs/design/javascript-client.md.

import { GatewayError } from "./errors.js";
import { offsetOf } from "./reading.js";
import { complete } from "./values.js";

// Returns the last attempt of a stream as far as it was stored when this was called.
export async function readStory(http, name, { after, signal, timeoutSeconds, maxMegabytes = 64 }) {
  let chunks = [], gaps = [], place = after, until = null, page;
  for (let pages = 1; ; pages++) {
    const url = http.address("story", name, { after: place });
    page = await http.ask("GET", url, { signal, timeoutSeconds });
    if (page.starts_over) chunks = gaps = [];
    chunks = chunks.concat(page.chunks);
    gaps = gaps.concat(page.gaps);
    place = page.after;
    until ??= page.offset;
    if (page.is_complete || offsetOf(place) >= until) break;
    if (pages >= maxMegabytes) {
      throw new GatewayError("story_too_large", `the story of ${name} has more than about ` +
        `${maxMegabytes} megabytes; give maxMegabytes, or read its events`);
    }
  }
  const { chunks: _chunks, gaps: _gaps, ...story } = page;
  const decoder = new TextDecoder("utf-8", { ignoreBOM: true });
  let text = "";
  const values = chunks.map((chunk) => {
    const { bytes, value } = complete(chunk);
    if (bytes) text += decoder.decode(bytes, { stream: true });
    else if (typeof value === "string") text += value;
    return bytes ?? value;
  });
  if (page.seal) text += decoder.decode();
  return { ...story, is_complete: true, text, values, chunks, gaps };
}
