// Stays at the end of a stream that grows, until somebody scrolls up.

import { at } from "./dom.js";

const NEAR = 16;
let following = true;

export const isFollowing = () => following;

export function follow(on) {
  following = on;
  offer();
  if (on) at("scroller").scrollTop = at("scroller").scrollHeight;
}

function offer() {
  const scroller = at("scroller");
  at("latest").hidden = following || scroller.scrollHeight <= scroller.clientHeight;
}

// Shows the beginning of a stream that has ended before it was opened.
export function toBeginning() {
  follow(false);
  at("scroller").scrollTop = 0;
}

// Says what is at the end: what is written just now, or the end of the stream.
export function isLive(is) {
  at("latest").textContent = is ? "↓ Jump to live" : "↓ Jump to the end";
}

export function start() {
  const scroller = at("scroller");
  let before = 0;
  scroller.addEventListener("scroll", () => {
    const below = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
    const isUp = scroller.scrollTop < before - 1; // text that arrives does not scroll up
    before = scroller.scrollTop;
    if (below < NEAR) follow(true);
    else if (isUp && following) follow(false);
  });
  at("latest").addEventListener("click", () => {
    follow(true);
    scroller.focus({ preventScroll: true });
  });
  new ResizeObserver(() => {
    follow(following);
  }).observe(scroller);
}
