// Says what the state of a stream means, and what to do about it.

export const STATES = ["OPEN", "END", "ERROR", "CANCELLED"];

// Shapes, since colours alone are not seen by all.
export const SHAPES = { OPEN: "●", END: "✓", ERROR: "✕", CANCELLED: "■", ABSENT: "◌", "": "·" };

export function meaning(event, hasGap) {
  switch (event.state) {
    case "END":
      return hasGap ? "The producer finished. Of the stream this is what is still stored."
        : "The producer finished. This is the whole stream.";
    case "CANCELLED":
      return "The work was stopped on request. What was written until then is complete; " +
        "the rest was never made. Start the work again if you need it.";
    default:
      return event.retryable
        ? "The producer failed with an error that it calls temporary, and was not tried again. " +
          "What you see is incomplete. Start the work again."
        : "The producer failed, and no further attempt follows. What you see is incomplete. " +
          "Look for the cause in its log or in Temporal, then start the work again.";
  }
}

export function reason(event) {
  return [event.error_type, event.message].filter(Boolean).join(": ");
}

// What a refusal of the gateway means, for those who cannot look into its log.
const REFUSALS = {
  insufficient_scope: "The token does not permit this. Ask whoever issued it for one that does.",
  client_limit: "This browser has too many streams open; close other tabs. Trying again…",
  gateway_limit: "The gateway is busy. Trying again…",
  quota: "Your quota is used up at the moment. Trying again…",
  backend_unavailable: "The storage behind the gateway does not answer. Trying again…",
};

// In place of the client's message, which is for programmers.
const OURS = {
  unreachable: "The gateway does not answer. Trying again…",
  revocations_unknown: "The gateway cannot look up which tokens were revoked. Trying again…",
};

export function refusal(code, message) {
  if (OURS[code]) return OURS[code];
  return [message, REFUSALS[code]].filter(Boolean).join(". ") || "The gateway refuses this stream.";
}
