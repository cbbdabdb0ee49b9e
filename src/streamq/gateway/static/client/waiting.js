// Waits, with deadlines, in browsers and elsewhere. Design: docs/design/javascript-client.md.

// Returns what a promise has, or throws what `late` returns after so many milliseconds.
export async function within(promise, ms, late) {
  let timer;
  const over = new Promise((_resolve, reject) => {
    timer = setTimeout(() => reject(late()), ms);
  });
  try {
    return await Promise.race([promise, over]);
  } finally {
    clearTimeout(timer);
  }
}

// Returns what a promise has, or throws the reason of a signal that is aborted before.
export function unlessAborted(promise, signal) {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) abort();
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}

// Waits until the time is over, the browser is online again, or a signal is aborted.
export function pause(ms, ...signals) {
  return new Promise((resolve) => {
    const wake = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", wake);
      for (const signal of signals) signal?.removeEventListener("abort", wake);
      resolve();
    };
    const timer = setTimeout(wake, ms);
    globalThis.addEventListener?.("online", wake);
    for (const signal of signals) signal?.addEventListener("abort", wake);
    if (signals.some((signal) => signal?.aborted)) wake();
  });
}

// Says how long to wait before the next connection: longer after each failure, and never the same,
// so that clients that were cut off together do not come back together.
export class Pace {
  #failures = 0;
  retryMs = 500; // until the gateway says what it wants
  mostMs = 15_000;

  succeed() {
    this.#failures = 0;
  }

  // Returns milliseconds, at least those that the gateway has asked for.
  next(least = 0) {
    const most = Math.max(this.retryMs, this.mostMs);
    const isFirst = this.#failures === 0;
    const step = Math.min(this.retryMs * 2 ** Math.min(this.#failures++, 10), most);
    const share = isFirst ? Math.random() : 0.5 + Math.random() / 2;
    return Math.max(step * share, least * (1 + Math.random() / 10));
  }
}

// Aborts what it guards after a silence. A clock that jumped, of a machine that has slept, counts;
// the monotonic clock alone may stand still meanwhile.
export class Watchdog {
  #timer = null;
  #wall = 0;
  #steady = 0;
  #limit = Infinity;

  constructor(bark) {
    this.#timer = setInterval(() => {
      const silence = Math.max(Math.abs(Date.now() - this.#wall), performance.now() - this.#steady);
      if (silence > this.#limit) bark();
    }, 1000);
  }

  // Begins to wait.
  expect(ms) {
    this.#wall = Date.now();
    this.#steady = performance.now();
    this.#limit = ms;
  }

  // What was expected has come: nothing is awaited now.
  rest() {
    this.#limit = Infinity;
  }

  stop() {
    clearInterval(this.#timer);
  }
}
