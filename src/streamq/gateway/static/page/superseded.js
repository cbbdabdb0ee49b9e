// Keeps the text of attempts that a later one has made void, closed, and not more than a bound.

import { make, show } from "./dom.js";
import { clipped } from "./tree.js";

const KEEP_ATTEMPTS = 20;
const KEEP_CHARS = 1_000_000;

export class Superseded {
  constructor(root) {
    this.root = root;
    this.clear();
  }

  clear() {
    this.kept = []; // {attempt, text, chars}
    this.root.replaceChildren();
  }

  add(title, [fragment, chars], isLog) {
    const text = make("div", { className: "old-text" + (isLog ? " log" : "") });
    text.append(fragment);
    const attempt = make("details", {}, make("summary", {}, clipped(title, 200)), text);
    this.root.append(attempt);
    this.kept.push({ attempt, text, chars });
    if (this.root.childElementCount > KEEP_ATTEMPTS) {
      if (this.kept[0].attempt === this.root.firstChild) this.kept.shift();
      this.root.firstChild.remove();
    }
    let sum = this.kept.reduce((all, each) => all + each.chars, 0);
    while (sum > KEEP_CHARS && this.kept.length > 1) {
      const oldest = this.kept.shift();
      sum -= oldest.chars;
      show(oldest.text, "The page has dropped this text; it is still in the stream.");
    }
  }
}
