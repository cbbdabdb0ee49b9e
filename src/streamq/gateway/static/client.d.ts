// Types of client.js. Documentation: docs/javascript.md of streamq.

/** Says why a request or a stream failed. */
export class GatewayError extends Error {
  /**
   * The gateway's name for it ("stream_not_found", "cursor", "insufficient_scope", "revoked"), or one
   * of the client: "unreachable", "connection_lost", "token_failed", "bad_request", "bad_response",
   * "timeout", "story_too_large"; "http_500" and the like for answers of others.
   */
  readonly code: string;
  /** HTTP status; 0 if there was no answer, or the error was reported within one. */
  readonly status: number;
  /** Whether the same may succeed later. */
  readonly retryable: boolean;
  /** The stream that it concerns, if it concerns one of several. */
  readonly stream?: string;
}

export interface GatewayOptions {
  /**
   * Returns a token, or a promise of one; or nothing, if a session cookie stands for it. Called when
   * the first request needs one, before it ends ("ending"), and when it was refused. A text is for
   * programs that end before their token does.
   */
  token?: string | ((why: { reason: "first" | "ending" | "refused" }) => Awaitable<string | null | undefined | void>);
  /** Tenant in the path, `/t/TENANT/`. */
  tenant?: string;
  /** Cookies, as for `fetch`; "same-origin" unless given. */
  credentials?: RequestCredentials;
  /** Whether streams share one connection: a browser has six for each host over HTTP/1.1. */
  share?: boolean;
  /** What integers become that a number would round; "bigint" unless given. */
  integers?: "bigint" | "string" | "number" | ((digits: string) => unknown);
  /** After so many seconds without a byte a connection counts as dead; 40 unless given. */
  silenceSeconds?: number;
}

type Awaitable<T> = T | PromiseLike<T>;

export interface Connection {
  state: "open" | "reconnecting";
  /** Why the last connection ended; null while one is open. */
  problem: GatewayError | null;
}

export interface ReadOptions {
  /** Seconds to wait for a stream that does not exist yet; Infinity is possible. Without it: an error. */
  wait?: number;
  /** Ends the reading with its reason. */
  signal?: AbortSignal;
  /** How long to try without a connection; for ever unless given. Not for shared connections. */
  patienceSeconds?: number;
  /** Called when a connection is open, and when it is lost. */
  onConnection?: (now: Connection) => void;
  /**
   * Called with the text of an event that is no JSON, which is then left out; else that is an error.
   * Not for shared connections.
   */
  onUnreadable?: (text: string) => void;
}

export type Start =
  | {
      /** Where to begin: at the first event, the latest value, or after now. */
      from?: "beginning" | "last" | "tail";
      after?: undefined;
    }
  | {
      from?: undefined;
      /** The `id` of an event: begin with the one after it. */
      after?: string;
    };

export type EventOptions = ReadOptions & Start & {
  /** As for the gateway. */
  share?: boolean;
};

interface Placed {
  /** Place of the event, for `after`. */
  id: string;
  /** Number of the event. */
  offset: number;
  attempt: number;
}

export interface ChunkEvent<Value = unknown> extends Placed {
  event: "chunk";
  seq: number;
  /** Text or JSON; missing if the chunk has bytes, or could not be decoded. */
  value?: Value;
  /** JSON Pointers of numbers that JSON lacks; they are in `value` already. */
  nonfinite?: string[];
  bytes?: Uint8Array;
  base64?: string;
  /** What could not be decoded; its bytes are `payload` or `base64`. */
  undecoded?: { encoding: string; message_type?: string; size_bytes: number; reason: string };
  payload?: string;
}

/** A new attempt starts over: discard everything before it. */
export interface ResetEvent extends Placed {
  event: "reset";
}

/** Events `first` to `offset` are no longer stored. */
export interface GapEvent extends Placed {
  event: "gap";
  first: number;
}

/** The ending; always the last event. */
export interface EndEvent extends Placed {
  event: "end";
  state: "END" | "ERROR" | "CANCELLED";
  message?: string;
  error_type?: string;
  retryable?: boolean;
}

export type StreamEvent<Value = unknown> = ChunkEvent<Value> | ResetEvent | GapEvent | EndEvent;

/** A stream belongs to the subscription, or has appeared. */
export interface FoundEvent {
  event: "stream";
  stream: string;
  place: string;
  state: "OPEN" | "ABSENT" | "ENDED";
  is_new: boolean;
}

/** Concerns one stream, or one prefix, only. If it is retryable, the gateway goes on with it by itself. */
export interface ErrorEvent {
  event: "error";
  stream?: string;
  prefix?: string;
  error: string;
  message: string;
  retryable: boolean;
}

export type ManyEvent<Value = unknown> =
  | (StreamEvent<Value> & { stream: string; place: string })
  | FoundEvent
  | ErrorEvent;

export interface ManyOptions extends ReadOptions {
  /** Also all streams whose names begin so. */
  prefixes?: string[];
  from?: "beginning" | "last" | "tail";
  /** Places by the names of streams; others begin at `from`. */
  after?: Record<string, string>;
}

/** Events of many streams over one connection. */
export interface Subscription<Value = unknown> extends AsyncIterableIterator<ManyEvent<Value>> {
  /** Places to go on from, for `after`. */
  readonly places: Record<string, string>;
  /** Number of connections so far. */
  readonly connections: number;
  /** Reads a stream as well, from the next connection on. */
  add(name: string, options?: { after?: string }): void;
  /** Reads a stream no more. */
  remove(name: string): void;
  return(value?: unknown): Promise<IteratorResult<ManyEvent<Value>>>;
}

export type Seal = Omit<EndEvent, "id">;

export interface Status {
  tenant: string;
  name: string;
  attempt: number;
  offset: number;
  state: "OPEN" | "END" | "ERROR" | "CANCELLED";
  seal: Seal | null;
  records: number;
  size_bytes: number;
  expires_in_seconds: number | null;
  /** What requests with this token may do: "read", "describe", "cancel", "delete". */
  actions: string[];
  execution: Execution | null;
  temporal_url: string | null;
}

/** What a stream is named after. */
export interface Execution {
  kind: "workflow" | "activity";
  id: string;
  run_id: string;
}

export interface Story<Value = unknown> {
  tenant: string;
  name: string;
  attempt: number;
  offset: number;
  state: "OPEN" | "END" | "ERROR" | "CANCELLED";
  seal: Seal | null;
  /** Place after the newest event, to go on live. */
  after: string;
  /** Text chunks, and bytes as UTF-8, joined. */
  text: string;
  /** The value of each chunk; undefined for what could not be decoded. */
  values: (Value | Uint8Array | undefined)[];
  chunks: ChunkEvent<Value>[];
  gaps: Omit<GapEvent, "id">[];
}

export interface Stopped {
  execution: Execution;
  cancel_requested: boolean;
  /** OPEN if it has not ended yet, ABSENT if it was never opened. */
  state: "OPEN" | "ABSENT" | "END" | "ERROR" | "CANCELLED";
  seal: Seal | null;
}

export interface Listed {
  streams: {
    name: string;
    records: number;
    size_bytes: number;
    expires_in_seconds: number | null;
    /** This and the following with `details` only; null while it is not known. */
    state?: Status["state"] | null;
    seal?: Seal | null;
    attempt?: number | null;
    offset?: number | null;
    /** Seconds since 1970, by the producer's clock. */
    opened_at?: number | null;
    attempt_opened_at?: number | null;
    execution?: Execution | null;
    temporal_url?: string | null;
  }[];
  is_complete: boolean;
  /** With `details` only: ask again soon if it is false. */
  details_are_complete?: boolean;
}

export interface RequestOptions {
  signal?: AbortSignal;
  /** Deadline with all repetitions; 30 unless given. */
  timeoutSeconds?: number;
}

/** What an application shows of a stream: the attempt that counts. */
export interface View<Value = unknown> {
  readonly name: string;
  readonly state: "waiting" | "live" | "reconnecting" | "END" | "ERROR" | "CANCELLED" | "failed";
  /** Whether nothing more comes. */
  readonly isOver: boolean;
  /** Text chunks, and bytes as UTF-8, joined. */
  readonly text: string;
  /** The value of each chunk. */
  readonly values: (Value | Uint8Array | undefined)[];
  readonly attempt: number;
  /** Number of chunks of the attempt. */
  readonly chunks: number;
  readonly offset: number;
  /** Place to go on from. */
  readonly place: string;
  readonly ending: EndEvent | null;
  /** Why it has failed, or why it reconnects. */
  readonly problem: Error | null;
  /** Whether the beginning is missing: a gap, or more than `maxCharacters` or `maxValues`. */
  readonly isCut: boolean;
}

export type ViewOptions = EventOptions & {
  /** Longest text that is kept; 16 Mi unless given. */
  maxCharacters?: number;
  /** Most values that are kept; 100,000 unless given. */
  maxValues?: number;
};

export interface StreamView<Value = unknown> {
  readonly name: string;
  readonly current: View<Value>;
  /** The same as a function, as `useSyncExternalStore` takes it. */
  readonly getSnapshot: () => View<Value>;
  /** Calls a function after each change, at most once for each animation frame. Returns what ends it. */
  readonly subscribe: (listener: (now: View<Value>) => void) => () => void;
  /** Stops what writes the stream. */
  stop(options?: StopOptions): Promise<Stopped>;
  /** Reads no more. */
  close(): void;
}

export interface StopOptions {
  /** Seconds to wait for the ending, 0 to 60; 10 unless given. */
  wait?: number;
  signal?: AbortSignal;
  /** Deadline with all repetitions; 30 more than `wait` unless given. */
  timeoutSeconds?: number;
}

export class Gateway {
  /**
   * @param url Address of the gateway, also with a path; the folder of client.js unless given.
   * @throws {GatewayError} "bad_request": the address or an option cannot be used.
   */
  constructor(url?: string | URL, options?: GatewayOptions);

  /** Yields each event of a stream once; the last one is its `end`. Reconnects by itself. */
  events<Value = unknown>(name: string, options?: EventOptions): AsyncGenerator<StreamEvent<Value>, void, undefined>;
  /** Yields the events of many streams over one connection. */
  events<Value = unknown>(names: string[], options?: ManyOptions): Subscription<Value>;

  /** Calls a function with what is to be shown of a stream: now, and after each change. */
  show<Value = unknown>(
    name: string,
    listener: (now: View<Value>) => void,
    options?: ViewOptions,
  ): StreamView<Value>;
  /** Yields what is to be shown of a stream after each change; the last one says how it ended. */
  views<Value = unknown>(name: string, options?: ViewOptions): AsyncGenerator<View<Value>, void, undefined>;
  /** Returns a view that reads while it has subscribers. */
  view<Value = unknown>(name: string, options?: ViewOptions): StreamView<Value>;

  /** Returns the attempt that counts, as it is stored now. */
  story<Value = unknown>(
    name: string,
    options?: RequestOptions & { after?: string; maxMegabytes?: number },
  ): Promise<Story<Value>>;
  /** Stops what writes a stream, and waits for its end. */
  stop(name: string, options?: StopOptions): Promise<Stopped>;
  /** Returns where a stream stands. */
  status(name: string, options?: RequestOptions): Promise<Status>;
  /** Returns streams, the most recent ones first. */
  list(options?: RequestOptions & { prefix?: string; limit?: number; details?: boolean }): Promise<Listed>;
}

/** Reads JSON; integers that a number would round become what `integers` says. */
export function parse(text: string, integers?: GatewayOptions["integers"]): unknown;
