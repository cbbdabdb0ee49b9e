// Asks an agent with the client of A2A in JavaScript, and shows its artifact while it grows.
// npm install @a2a-js/sdk, and then: node a2a_client.mjs http://127.0.0.1:8017 lighthouse
import { randomUUID } from "node:crypto";
import { ClientFactory } from "@a2a-js/sdk/client";

const [url, text] = process.argv.slice(2);
const agent = await new ClientFactory().createFromUrl(url);
const message = {
  messageId: randomUUID(),
  role: 1, // of the user
  parts: [{ content: { $case: "text", value: text } }],
};

let shown = "";
for await (const { payload } of agent.sendMessageStream({ message })) {
  if (payload.$case === "artifactUpdate") {
    const { append, artifact } = payload.value;
    const added = artifact.parts.map((part) => part.content.value).join("");
    shown = append ? shown + added : added; // without append it replaces what there was
    process.stdout.write(`${shown}\n`);
  } else if (payload.$case === "statusUpdate") {
    process.stdout.write(`state ${payload.value.status.state}\n`);
  }
}
