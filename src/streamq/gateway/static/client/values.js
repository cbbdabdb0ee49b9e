// Reads JSON as the gateway writes it, without losing anything that JavaScript can hold.
// Design: docs/design/javascript-client.md.

const NEXT = /"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g; // the beginning of a string, or a number
const COLON = /\s*:/y;
const MARK = "\\u0000"; // begins what was a long integer; strings that begin with it get another one

// Reads JSON. Integers that JavaScript would round become what `integers` says: "bigint", "string",
// "number" (rounded), or a function of their digits.
export function parse(text, integers = "bigint") {
  if (integers === "number" || !/\d{16}/.test(text)) return JSON.parse(text);
  const made = { bigint: BigInt, string: String }[integers] ?? integers;
  const marked = markedOf(text);
  if (marked === null) return JSON.parse(text);
  return JSON.parse(marked, (_key, value) => {
    if (typeof value !== "string" || value[0] !== "\0") return value;
    return value[1] === "\0" ? value.slice(1) : made(value.slice(1));
  });
}

// Returns JSON with long integers in quotes, or nothing if there are none.
function markedOf(text) {
  let marked = "", from = 0, isMarked = false;
  NEXT.lastIndex = 0;
  for (let found; (found = NEXT.exec(text)) !== null;) {
    const [token] = found;
    if (token === '"') {
      const end = endOf(text, found.index);
      COLON.lastIndex = NEXT.lastIndex = end;
      if (text.startsWith(MARK, found.index + 1) && !COLON.test(text)) {
        marked += `${text.slice(from, found.index)}"${MARK}`;
        from = found.index + 1;
      }
    } else if (/^-?\d+$/.test(token) && !Number.isSafeInteger(Number(token))) {
      marked += `${text.slice(from, found.index)}"${MARK}${token}"`;
      from = NEXT.lastIndex;
      isMarked = true;
    }
  }
  return isMarked ? marked + text.slice(from) : null;
}

// Returns where a string ends. A regular expression for strings needs stack for each escape.
function endOf(text, begin) {
  for (let at = text.indexOf('"', begin + 1); at >= 0; at = text.indexOf('"', at + 1)) {
    let before = at - 1;
    while (text[before] === "\\") before--;
    if ((at - before) % 2) return at + 1;
  }
  return text.length; // JSON.parse reports it
}

const NONFINITE = { NaN, Infinity, "-Infinity": -Infinity };

// Puts numbers that JSON lacks back in their places, and adds bytes as a Uint8Array.
export function complete(event) {
  if (event.event !== "chunk") return event;
  if (event.nonfinite) {
    for (const pointer of event.nonfinite) putNumber(event, pointer);
  } else if (typeof event.base64 === "string" && !event.undecoded) {
    event.bytes = fromBase64(event.base64);
  }
  return event;
}

// Puts the number that a JSON Pointer names, RFC 6901.
function putNumber(event, pointer) {
  const keys = pointer.split("/").slice(1)
    .map((key) => key.replaceAll("~1", "/").replaceAll("~0", "~"));
  const last = keys.pop();
  if (last === undefined) {
    event.value = NONFINITE[event.value];
    return;
  }
  let holder = event.value;
  for (const key of keys) holder = holder[key];
  holder[last] = NONFINITE[holder[last]];
}

function fromBase64(text) {
  const binary = atob(text), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}
