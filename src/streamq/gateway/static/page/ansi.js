// Reads colours of terminals (SGR) from text. No other sequence does anything: its control
// characters are shown as signs, and stay in the text.

const SIGNS = /\x1b\[([0-9;:]{0,60})m|[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/g;
const BEGUN = /\x1b(?:\[[0-9;:]{0,60})?$/; // may become a colour with the next chunk
export const HAS_SIGN = /[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]/;
export const HAS_COLOUR = /\x1b\[[0-9;:]{0,60}m/;
const STYLES = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "struck" };
const ENDS = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["struck"] };
// The sixteen colours; others are shown as the nearest one, so that all can be read.
const PALETTE = [
  [0, 0, 0], [170, 0, 0], [0, 150, 0], [160, 110, 0], [0, 0, 190], [160, 0, 160], [0, 150, 160],
  [180, 180, 180], [110, 110, 110], [255, 85, 85], [85, 255, 85], [255, 255, 85], [85, 85, 255],
  [255, 85, 255], [85, 255, 255], [255, 255, 255],
];

export class Ansi {
  constructor() {
    this.held = "";
    this.styles = new Set();
    this.front = this.back = null;
  }

  get isPlain() {
    return !this.held && !this.className;
  }

  get className() {
    const names = [...this.styles].map((style) => "sgr-" + style);
    if (this.front !== null) names.push("fg-" + this.front);
    if (this.back !== null) names.push("bg-" + this.back);
    return names.join(" ");
  }

  // Calls `piece(text, className)` for text and `sign(character)` for what cannot be seen.
  feed(text, piece, sign) {
    text = this.held + text;
    const begun = BEGUN.exec(text);
    this.held = begun ? begun[0] : "";
    if (begun) text = text.slice(0, begun.index);
    this.#read(text, piece, sign);
  }

  // Shows what was held back: nothing follows that could complete it.
  finish(piece, sign) {
    const held = this.held;
    this.held = "";
    this.#read(held, piece, sign);
  }

  #read(text, piece, sign) {
    let from = 0;
    for (const found of text.matchAll(SIGNS)) {
      if (found.index > from) piece(text.slice(from, found.index), this.className);
      from = found.index + found[0].length;
      if (found[1] === undefined) sign(found[0]);
      else this.#set(found[1].split(/[;:]/).map(Number));
    }
    if (from < text.length) piece(text.slice(from), this.className);
  }

  #set(codes) {
    for (let i = 0; i < codes.length; i++) {
      const code = codes[i];
      if (code === 0) {
        this.styles.clear();
        this.front = this.back = null;
      } else if (STYLES[code]) this.styles.add(STYLES[code]);
      else if (ENDS[code]) for (const style of ENDS[code]) this.styles.delete(style);
      else if (code === 39) this.front = null;
      else if (code === 49) this.back = null;
      else if (code >= 30 && code <= 37) this.front = code - 30;
      else if (code >= 90 && code <= 97) this.front = code - 82;
      else if (code >= 40 && code <= 47) this.back = code - 40;
      else if (code >= 100 && code <= 107) this.back = code - 92;
      else if (code === 38 || code === 48) {
        const colour = codes[i + 1] === 5 ? ofTable(codes[i + 2])
          : codes[i + 1] === 2 ? nearest(codes.slice(i + 2, i + 5)) : null;
        i += codes[i + 1] === 5 ? 2 : codes[i + 1] === 2 ? 4 : 0;
        if (code === 38) this.front = colour;
        else this.back = colour;
      }
    }
  }
}

// The 256 colours of xterm: sixteen, a cube of 6 x 6 x 6, shades of grey.
function ofTable(number) {
  if (!(number >= 0 && number <= 255)) return null;
  if (number < 16) return number;
  if (number >= 232) return nearest(Array(3).fill((number - 232) * 10 + 8));
  const level = (step) => step % 6 && (step % 6) * 40 + 55;
  const place = number - 16;
  return nearest([level(Math.floor(place / 36)), level(Math.floor(place / 6)), level(place)]);
}

function nearest(colour) {
  const far = PALETTE.map((each) =>
    each.reduce((sum, part, i) => sum + (part - (colour[i] || 0)) ** 2, 0));
  return far.indexOf(Math.min(...far));
}
