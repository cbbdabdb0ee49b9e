// Uses the JavaScript client as applications do, for the strict mode of TypeScript.

import {
  Gateway, GatewayError, parse, type StreamEvent, type Subscription, type View,
} from "./client.js";
import { useStream } from "./useStream.js";

interface Step {
  done: number;
}

const gateway = new Gateway("https://streams.example.org/in/it", {
  token: async ({ reason }) => (reason === "first" ? "a.b.c" : null),
  tenant: "acme",
  credentials: "include",
  share: true,
  integers: (digits) => digits.length,
  silenceSeconds: 20,
});
new Gateway();
new Gateway(undefined, { token: async () => { await fetch("/renew"); }, credentials: "include" });
new Gateway(new URL("https://streams.example.org"), { token: "a.b.c" });

async function one(signal: AbortSignal): Promise<string> {
  let text = "";
  let place: string | undefined;
  for await (const event of gateway.events<string>("name", { after: place, wait: Infinity, signal })) {
    place = event.id;
    switch (event.event) {
      case "chunk":
        text += event.value ?? event.bytes?.length ?? event.undecoded?.reason ?? "";
        break;
      case "reset":
        text = "";
        break;
      case "gap":
        text += `${event.first} to ${event.offset} are missing`;
        break;
      case "end": {
        const state: "END" | "ERROR" | "CANCELLED" = event.state;
        return state + (event.message ?? "");
      }
      default: {
        const nothing: never = event;
        return nothing;
      }
    }
  }
  return text;
}

async function many(): Promise<Record<string, string>> {
  const events: Subscription<Step> = gateway.events<Step>(["a"], { prefixes: ["chat-7/"], from: "tail" });
  events.add("b", { after: "3@4" });
  events.remove("a");
  for await (const event of events) {
    if (event.event === "stream") console.log(event.stream, event.state, event.is_new);
    else if (event.event === "error") console.log(event.stream ?? event.prefix, event.error, event.retryable);
    else if (event.event === "chunk") console.log(event.stream, event.place, event.value?.done);
  }
  return events.places;
}

async function requests(): Promise<number> {
  const story = await gateway.story<Step>("name", { maxMegabytes: 3, timeoutSeconds: 5 });
  const value: Step | Uint8Array | undefined = story.values[0];
  const { cancel_requested, state } = await gateway.stop("name", { wait: 3 });
  const { streams } = await gateway.list({ prefix: "chat-7/", limit: 3, details: true });
  const running: string | undefined = streams[0]?.execution?.id;
  const status = await gateway.status("name");
  const parsed: unknown = parse("[1]", "string");
  console.log(running, value, cancel_requested, state, streams[0]?.name, status.seal?.state, parsed);
  return story.text.length;
}

async function views(): Promise<void> {
  const view = gateway.show<string>("name", ({ text, state, problem }) => {
    if (state === "failed" && problem instanceof GatewayError) console.log(problem.code, problem.status);
    console.log(text);
  });
  const unsubscribe: () => void = view.subscribe((now: View<string>) => console.log(now.values[0]));
  unsubscribe();
  await view.stop({ wait: 1 });
  view.close();
  for await (const { ending, isCut } of gateway.views("name")) console.log(ending?.state, isCut);
  const { text } = useStream(gateway, "name");
  console.log(text, view.current.offset);
}

const first = async (): Promise<StreamEvent | void> => (await gateway.events("name").next()).value;

// @ts-expect-error: places and beginnings exclude each other
gateway.events("name", { after: "3@4", from: "tail" });
// @ts-expect-error: there is no such beginning
gateway.events("name", { from: "end" });
// @ts-expect-error: a view cannot be changed
gateway.view("name").current.text = "";
// @ts-expect-error: a token is text
new Gateway("https://streams.example.org", { token: () => 7 });
// @ts-expect-error: the last value is none
first().then((event) => event.offset);

export { first, many, one, requests, views };
