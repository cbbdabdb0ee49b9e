// Counts what the newest story has: chunks that a later attempt has made void do not count.

import { at } from "./dom.js";
import { counted, duration } from "./names.js";

const RATE_MS = 3000;
const MAX_TIMES = 50_000;

export class Counters {
  constructor() {
    this.begin();
  }

  begin() {
    this.chunks = 0;
    this.times = []; // when chunks arrived that were written just then
    this.show(0, null, true);
  }

  chunk(isLive) {
    this.chunks++;
    if (!isLive) return;
    this.times.push(performance.now());
    if (this.times.length > MAX_TIMES) this.times.splice(0, MAX_TIMES / 2);
  }

  supersede() {
    this.chunks = 0;
  }

  // `first` is how long the attempt took to its first chunk, in seconds, if that was seen.
  show(offset, first, isRunning) {
    const now = performance.now();
    this.times = this.times.filter((time) => time > now - RATE_MS);
    set("chunks", counted(this.chunks));
    set("offset", counted(offset));
    set("rate", (this.times.length / (RATE_MS / 1000)).toFixed(1));
    at("rate-fact").hidden = !isRunning;
    at("first-fact").hidden = first === null || first === undefined;
    if (!at("first-fact").hidden) set("first", duration(first));
  }
}

function set(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}
