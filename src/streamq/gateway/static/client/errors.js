// Reports what went wrong, in a form that programs compare. Design: docs/design/javascript-client.md.

// What passes by itself: bounds of the gateway, proxies whose gateway restarts, CDNs.
const PASSING = [408, 425, 429, 502, 503, 504, 520, 521, 522, 523, 524, 530];

const MOST_SHOWN = 300;

// Says why a request or a stream failed: `code` is that of the gateway ("stream_not_found"), or one
// of ours ("unreachable", "token_failed", "bad_response", "bad_request", "timeout"). `retryable`
// says whether the same may succeed later.
export class GatewayError extends Error {
  constructor(code, message, { status = 0, retryable = false, stream, pause = 0, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "GatewayError";
    this.code = code;
    this.status = status;
    this.retryable = retryable;
    if (stream !== undefined) this.stream = stream;
    Object.defineProperty(this, "pause", { value: pause }); // ms that the gateway asks to wait
  }

  // Returns the error for an answer that is no success.
  static async of(response) {
    const { status } = response;
    const text = await response.text().catch(() => "");
    let body = null;
    try {
      body = JSON.parse(text);
    } catch {
      body = null; // a proxy's page
    }
    const isOurs = typeof body?.error === "string";
    const code = isOurs ? body.error : `http_${status}`;
    const message = isOurs && body.message || `the server answered ${status}` +
      (text.trim() && !/<\w/.test(text) ? `: ${text.trim().slice(0, MOST_SHOWN)}` : "") +
      (status === 404 ? `; this is no answer of a gateway, so see whether its address is right` : "");
    const after = response.headers.get("retry-after");
    const retryable = isOurs && status === 502 ? after !== null : PASSING.includes(status);
    return new GatewayError(code, message, { status, retryable, pause: milliseconds(after) });
  }

  // Returns the error that an event reports.
  static ofEvent({ error, message, retryable, stream }) {
    return new GatewayError(error, message, { retryable, stream });
  }
}

const LONGEST_PAUSE_MS = 300_000;

// Returns the value of Retry-After: seconds, or a date.
function milliseconds(text) {
  if (!text) return 0;
  const found = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - Date.now();
  return Math.min(Math.max(found || 0, 0), LONGEST_PAUSE_MS);
}
