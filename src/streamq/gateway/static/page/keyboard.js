// Does by keys what the page does by clicks, and lists the keys.

import { at, make } from "./dom.js";
import { neighbour } from "./list.js";
import { follow } from "./scrolling.js";
import { openDialog } from "./session.js";

const KEPT = "streamq-single-keys"; // whether single keys work; speech input may press them by mistake

const KEYS = [
  ["/", "Find or open a stream"],
  ["j", "Next stream"],
  ["k", "Previous stream"],
  ["o", "Go to the text of the stream"],
  ["l", "Jump to live"],
  ["c", "Copy the text"],
  ["d", "Download"],
  ["v", "Show as text or as log"],
  ["s", "Stop what writes the stream"],
  ["t", "Token"],
  ["Escape", "Back to the list"],
  ["?", "These shortcuts"],
];

export function start({ open, back }) {
  at("shortcuts").append(...KEYS.map(([key, does]) => make("div", {},
    make("dt", {}, make("kbd", {}, key === "Escape" ? "Esc" : key)), make("dd", {}, does))));
  const box = at("single-keys");
  box.checked = stored(() => localStorage.getItem(KEPT)) !== "off";
  box.addEventListener("change", () =>
    stored(() => localStorage.setItem(KEPT, box.checked ? "on" : "off")));
  at("help-button").addEventListener("click", help);
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
    if (event.key === "Escape") {
      back();
      return;
    }
    if (event.target.closest("input, textarea, select") || !box.checked) return;
    if (act(event.key, open)) event.preventDefault();
  });
}

// A browser that keeps nothing of this site throws.
function stored(use) {
  try {
    return use();
  } catch {
    return null;
  }
}

function help() {
  at("help-dialog").showModal();
}

function act(key, open) {
  switch (key) {
    case "/":
      at("back").offsetParent && at("back").click();
      at("name").focus();
      at("name").select();
      return true;
    case "j": case "k": {
      const name = neighbour(key === "j" ? 1 : -1);
      if (name !== undefined) open(name);
      return true;
    }
    case "o": at("scroller").focus(); return true;
    case "l": follow(true); return true;
    case "c": at("copy").click(); return true;
    case "d":
      if (!at("download").offsetParent) return true;
      at("download").open = true;
      at("download-text").focus();
      return true;
    case "v": {
      const view = at("view");
      view.selectedIndex = (view.selectedIndex + 1) % view.options.length;
      view.dispatchEvent(new Event("change"));
      return true;
    }
    case "s": at("stop").click(); return true;
    case "t": openDialog(null); return true;
    case "?": help(); return true;
  }
  return false;
}
