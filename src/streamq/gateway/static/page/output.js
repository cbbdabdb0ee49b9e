// Holds what one attempt has written, in blocks of bounded size of which the oldest are dropped.

import { Ansi, HAS_COLOUR, HAS_SIGN } from "./ansi.js";
import { make } from "./dom.js";

const KEEP_CHARS = 2_000_000;
const KEEP_ROWS = 5_000;
const KEEP_BLOCKS = 1_000;
const BLOCK_CHARS = 8_192;
const LONG_CHARS = 65_536; // of a block without an end of line
const BLOCK_ROWS = 50;
const ELEMENT_CHARS = 16; // that an element counts for, of a colour or a sign
const SURELY_LOG = 3; // chunks that are whole lines

export class Output {
  constructor(root) {
    this.root = root;
    this.view = "auto";
    this.begin();
  }

  // Begins anew, with nothing in it.
  begin() {
    this.blocks = []; // {element, chars, rows}
    this.chars = this.rows = this.lines = this.broken = 0;
    this.ansi = new Ansi();
    this.hasColour = this.hasDropped = false;
    this.#showView();
  }

  get isEmpty() {
    return this.blocks.length === 0;
  }

  // Looks at a chunk of text: whole lines, or colours, are those of a log.
  see(text) {
    if (!text) return;
    if (text.endsWith("\n")) this.lines++;
    else this.broken++;
    if (!this.hasColour && HAS_COLOUR.test(text)) this.hasColour = true;
    if (this.lines + this.broken <= SURELY_LOG + 1 || this.hasColour) this.#showView();
  }

  show(view) {
    this.view = view;
    this.#showView();
  }

  #showView() {
    const isLog = this.hasColour || this.lines >= SURELY_LOG && this.broken <= 1;
    this.root.classList.toggle("log", this.view === "auto" ? isLog : this.view === "log");
  }

  text(text) {
    if (!text) return;
    if (this.ansi.isPlain && !HAS_SIGN.test(text)) this.#piece(text, "");
    else this.ansi.feed(text, this.#piece, this.#sign);
  }

  // Ends the text before something else, or before the end.
  endText() {
    if (this.ansi.held) this.ansi.finish(this.#piece, this.#sign);
  }

  row(element, chars) {
    this.endText();
    let block = this.blocks.at(-1);
    if (!block || block.isText || block.rows >= BLOCK_ROWS || block.chars >= LONG_CHARS) {
      block = this.#block(false);
    }
    block.element.append(element);
    this.#count(block, chars, 1);
  }

  // Drops the oldest blocks beyond the bound; returns whether something was dropped now.
  trim() {
    let dropped = false;
    while (this.blocks.length > 1 && (this.chars > KEEP_CHARS || this.rows > KEEP_ROWS
        || this.blocks.length > KEEP_BLOCKS)) {
      const block = this.blocks.shift();
      this.chars -= block.chars;
      this.rows -= block.rows;
      block.element.remove();
      dropped = this.hasDropped = true;
    }
    return dropped;
  }

  // Takes everything out, for a place of its own, and begins anew.
  take() {
    const taken = document.createDocumentFragment();
    taken.append(...this.blocks.map((block) => block.element));
    const size = this.chars;
    this.begin();
    return [taken, size];
  }

  #block(isText) {
    const element = make("div", { className: isText ? "text" : "rows" });
    const block = { element, chars: 0, rows: 0, isText };
    this.root.append(element);
    this.blocks.push(block);
    return block;
  }

  #count(block, chars, rows) {
    block.chars += chars;
    block.rows += rows;
    this.chars += chars;
    this.rows += rows;
  }

  #piece = (text, className) => {
    while (text) {
      let block = this.blocks.at(-1);
      if (!block || !block.isText || block.isFull) block = this.#block(true);
      let part = text;
      const room = BLOCK_CHARS - block.chars;
      if (text.length > room) {
        const end = text.indexOf("\n", Math.max(room, 0)) + 1;
        if (end) part = text.slice(0, end);
        else if (block.chars + text.length > LONG_CHARS) part = text.slice(0, whole(text, LONG_CHARS));
        block.isFull = end > 0 || block.chars + part.length >= LONG_CHARS;
      }
      this.#append(block, part, className);
      text = text.slice(part.length);
    }
  };

  #append(block, text, className) {
    this.#count(block, text.length, 0);
    let last = block.element.lastChild;
    if (className) {
      if (last?.className !== className) {
        last = make("span", { className });
        block.element.append(last);
        this.#count(block, ELEMENT_CHARS, 0);
      }
      last.append(text);
    } else if (last?.nodeType === Node.TEXT_NODE) last.appendData(text);
    else block.element.append(text);
  }

  #sign = (character) => {
    let block = this.blocks.at(-1);
    if (!block || !block.isText || block.isFull) block = this.#block(true);
    const code = character.charCodeAt(0);
    const picture = code < 32 || code === 127 ? "^" + String.fromCharCode(code ^ 64)
      : "‹" + code.toString(16) + "›";
    block.element.append(make("span", { className: "sign", "data-sign": picture }, character));
    this.#count(block, ELEMENT_CHARS, 0);
    if (block.chars >= LONG_CHARS) block.isFull = true;
  };
}

// Cuts no character in two.
function whole(text, length) {
  return /[\ud800-\udbff]/.test(text[length - 1] || "") ? length - 1 : length;
}
