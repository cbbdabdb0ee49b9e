// Reads a stream over HTTP until it has ended, whatever closes the connection meanwhile. It uses
// fetch, which browsers and Node have, where EventSource does not fit: headers of one's own, no
// DOM. Run it with the address of a stream, and, where the gateway wants one, a file that has a
// token: node read_over_http.mjs http://127.0.0.1:8330/events/NAME token.txt

// Yields every event of a stream once; the last one is its "end". Only the event "end" ends a
// stream. A response that ends without it has reached the gateway's limit of age or the end of its
// token, or the gateway or the network has stopped: read on after the last id. `token` returns a
// token that is valid now, or a promise of one; each connection asks for one.
export async function* follow(url, { pause = 1000, signal, token } = {}) {
  let place = "";
  for (;;) {
    try {
      const headers = place ? { "Last-Event-ID": place } : {};
      if (token) headers.Authorization = `Bearer ${await token()}`;
      const response = await fetch(url, { headers, signal });
      if (response.status === 204) return; // this client already has the end
      const passes = [429, 502, 503, 504].includes(response.status); // by itself
      if (response.status !== 200 && !passes) { // 401, 404; 409: another stream
        throw Object.assign(new Error(await response.text()), { isFinal: true });
      }
      if (response.status === 200) {
        for await (const { id, name, data } of events(response.body)) {
          place = id ?? place;
          if (!data) continue; // only says where this client is
          const event = JSON.parse(data);
          if (name === "error" && !event.retryable) {
            throw Object.assign(new Error(event.message), { isFinal: true });
          }
          if (["chunk", "reset", "gap", "end"].includes(name)) yield event;
          if (name === "end") return;
        }
      }
    } catch (problem) {
      if (problem.isFinal || signal?.aborted) throw problem;
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Splits a body into server-sent events. The gateway ends lines with \n alone.
async function* events(body) {
  let text = "", event = {};
  for await (const piece of body.pipeThrough(new TextDecoderStream())) {
    text += piece;
    const lines = text.split("\n");
    text = lines.pop();
    for (const line of lines) {
      if (line === "") {
        yield event;
        event = {};
      } else if (line.startsWith("id: ")) event.id = line.slice(4);
      else if (line.startsWith("event: ")) event.name = line.slice(7);
      else if (line.startsWith("data: ")) event.data = line.slice(6);
    }
  }
}

const [, , address, file] = globalThis.process?.argv ?? [];
if (address) {
  const { readFile } = await import("node:fs/promises");
  const token = file && (async () => (await readFile(file, "utf8")).trim());
  for await (const event of follow(address, { token })) {
    if (event.event === "chunk") console.log(event.value ?? event);
    else if (event.event === "reset") console.log("-- another attempt starts over");
    else if (event.event === "end") console.log(`-- ${event.state}`);
  }
}
