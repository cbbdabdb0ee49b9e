// Reads what is stored of a stream, page by page. Design: docs/design/javascript-client.md.

import { offsetOf } from "./reading.js";
import { complete } from "./values.js";

// Returns the last attempt of a stream as far as it was stored when this was called.
export async function readStory(http, name, { after, signal, timeoutSeconds } = {}) {
  let chunks = [], gaps = [], place = after, until = null, page;
  do {
    const url = http.address("story", name, { after: place });
    page = await http.ask("GET", url, { signal, timeoutSeconds });
    if (page.starts_over) chunks = gaps = [];
    chunks = chunks.concat(page.chunks);
    gaps = gaps.concat(page.gaps);
    place = page.after;
    until ??= page.offset;
  } while (!page.is_complete && offsetOf(place) < until);
  const { chunks: _chunks, gaps: _gaps, ...story } = page;
  for (const chunk of chunks) complete(chunk);
  const values = chunks.map(valueOf).filter((value) => value !== undefined);
  const text = values.filter((value) => typeof value === "string").join("");
  return { ...story, is_complete: page.is_complete, text, values, chunks, gaps };
}

// Returns the value of a chunk: text, JSON, or bytes; undefined if nothing has decoded it.
export function valueOf(chunk) {
  return chunk.bytes ?? chunk.value;
}
