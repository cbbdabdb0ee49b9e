// The gateway's page: the list of streams, and one stream as it arrives. Text of others is inserted
// only as text. Design: docs/design/page.md of streamq.

import * as actions from "./actions.js";
import { at } from "./dom.js";
import * as keyboard from "./keyboard.js";
import * as list from "./list.js";
import * as scrolling from "./scrolling.js";
import * as session from "./session.js";
import { hide, logOut, refresh, watch, watchedStream } from "./stream.js";

// Shows a stream; its name is in the address, so that a link or the next visit opens it.
function open(name) {
  const url = new URL(location.href);
  const isSame = url.searchParams.get("stream") === name;
  url.searchParams.set("stream", name);
  if (!isSame) history.pushState(null, "", url);
  show(name);
  const hidesList = at("back").offsetParent !== null; // on a small screen, and the focus with it
  if (hidesList || document.activeElement === document.body) at("title").focus();
}

function show(name) {
  document.body.classList.add("showing");
  watch(name);
  list.setCurrent(name);
}

// Goes back to the list, on a small screen, or with the focus.
function back() {
  if (at("back").offsetParent) {
    const url = new URL(location.href);
    url.searchParams.delete("stream");
    history.pushState(null, "", url);
    byAddress();
  }
  const current = document.querySelector('#list button[tabindex="0"]');
  (current || at("name")).focus();
}

function byAddress() {
  const name = new URLSearchParams(location.search).get("stream");
  if (name) {
    if (watchedStream()?.name !== name) show(name);
    return;
  }
  document.body.classList.remove("showing");
  hide();
  list.setCurrent(null);
}

session.start();
scrolling.start();
actions.start();
keyboard.start({ open, back });
at("back").addEventListener("click", back);
addEventListener("popstate", byAddress);
session.changes.addEventListener("token", refresh);
session.changes.addEventListener("logout", logOut);
list.start(open);
byAddress();
