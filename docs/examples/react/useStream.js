// Shows a stream of a streamq gateway in a React component, version 18 or newer.

import { useMemo, useSyncExternalStore } from "react";

/**
 * Returns what is to be shown of a stream now: {text, values, state, attempt, problem, ...}. The
 * component renders again when that changes, at most once for each animation frame. The connection
 * is open while a component shows the stream. The gateway is made once, outside of components:
 *
 *     const gateway = new Gateway("https://streams.example.org", { token: getToken, share: true });
 *
 *     function Answer({ name }) {
 *       const { text, state } = useStream(gateway, name);
 *       return <p>{text} <i>{state}</i> <button onClick={() => gateway.stop(name)}>Stop</button></p>;
 *     }
 *
 * @param {import("./client.js").Gateway} gateway
 * @param {string} name
 */
export function useStream(gateway, name) {
  const view = useMemo(() => gateway.view(name), [gateway, name]);
  return useSyncExternalStore(view.subscribe, view.getSnapshot, view.getSnapshot);
}
