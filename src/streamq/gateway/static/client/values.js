// Reads JSON as the gateway writes it, without losing anything that JavaScript can hold.
// Design: docs/design/javascript-client.md.

const TOKENS = /"[^"\\]*(?:\\.[^"\\]*)*"(\s*:)?|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/gs;
const MARK = "\\u0000"; // begins what was a long integer; strings that begin with it get another one

// Reads JSON. Integers that JavaScript would round become what `integers` says: "bigint", "string",
// "number" (rounded), or a function of their digits.
export function parse(text, integers = "bigint") {
  if (integers === "number" || !/\d{16}/.test(text)) return JSON.parse(text);
  const made = { bigint: BigInt, string: String }[integers] ?? integers;
  let isMarked = false;
  const marked = text.replace(TOKENS, (token, colon) => {
    if (token[0] === '"') {
      return colon !== undefined || !token.startsWith(`"${MARK}`) ? token
        : `"${MARK}${token.slice(1)}`;
    }
    if (!/^-?\d+$/.test(token) || Number.isSafeInteger(Number(token))) return token;
    isMarked = true;
    return `"${MARK}${token}"`;
  });
  if (!isMarked) return JSON.parse(text);
  return JSON.parse(marked, (_key, value) => {
    if (typeof value !== "string" || value[0] !== "\0") return value;
    return value[1] === "\0" ? value.slice(1) : made(value.slice(1));
  });
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
