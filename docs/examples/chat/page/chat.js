// The chat's page: log in, show what was asked, ask, stop. Plain JavaScript, served as it is.

import { BACK_END } from "./config.js";

const byId = (id) => document.getElementById(id);
let token = null;

// Reading, from here: shows what comes of a stream. All streams share one connection.
const { Gateway } = await import(`${BACK_END}/streams/client.js`);
const gateway = new Gateway(`${BACK_END}/streams`, { token: newToken, share: true });
const STATES = { waiting: "thinking", live: "", reconnecting: "reconnecting", END: "", CANCELLED: "stopped" };

function follow(stream, { text, state, stop }) {
  const view = gateway.show(stream, (now) => {
    text.textContent = now.text; // of the attempt that counts: a retry begins anew
    text.ariaBusy = String(!now.isOver); // a screen reader reads the answer when it is complete
    const reason = (now.ending ?? now.problem)?.message ?? "without a reason";
    state.textContent = STATES[now.state] ?? `failed: ${reason}`;
    stop.hidden = now.isOver;
  });
  stop.onclick = () => view.stop().catch((problem) => { state.textContent = problem.message; });
  return view;
}

// Returns a new token: the client asks for one when the last one ends, or is refused.
async function newToken() {
  token = await ask("POST", "/token", { key: sessionStorage.renewal ?? "" }, false);
  return token;
}
// Reading, to here.

// Sends a request to the back end; one whose token has ended is sent again with a new one.
async function ask(method, path, data, hasToken = true) {
  for (let isAgain = false; ; isAgain = true) {
    const headers = { "Content-Type": "application/json" };
    if (hasToken) headers.Authorization = `Bearer ${token ?? await newToken()}`;
    const body = data && JSON.stringify(data);
    const response = await fetch(BACK_END + path, { method, headers, body });
    if (response.ok) return response.json();
    if (!hasToken || response.status !== 401 || isAgain) {
      if (response.status === 401) leave();
      throw new Error((await response.json()).detail);
    }
    token = null;
  }
}

const views = [];

function add({ question, stream }) {
  const item = byId("message").content.cloneNode(true).firstElementChild;
  const [text, state, stop] = [".answer", ".state", ".stop"].map((each) => item.querySelector(each));
  item.querySelector(".question").textContent = question;
  byId("messages").append(item);
  views.push(follow(stream, { text, state, stop }));
  scrollTo(0, document.body.scrollHeight);
}

// Keeps the end in sight while an answer grows, unless the reader has scrolled up.
const room = () => document.documentElement.scrollHeight - innerHeight - scrollY;
let isAtEnd = true;
addEventListener("scroll", () => { isAtEnd = room() < 50; });
new ResizeObserver(() => { if (isAtEnd) scrollTo(0, document.body.scrollHeight); }).observe(byId("messages"));

async function enter() {
  const isIn = "renewal" in sessionStorage;
  byId("who").textContent = isIn ? sessionStorage.who : "";
  byId("login").hidden = isIn;
  byId("leave").hidden = !isIn;
  if (isIn) (await ask("GET", "/messages")).forEach(add);
  byId("ask").hidden = !isIn;
}

function leave() {
  views.splice(0).forEach((view) => view.close());
  byId("messages").replaceChildren();
  sessionStorage.clear();
  location.reload(); // nothing of this user stays in memory
}

// Has an error of what an element does shown; the text stays until something succeeds.
function on(id, event, action) {
  byId(id).addEventListener(event, async (happened) => {
    happened.preventDefault();
    byId("problem").hidden = true;
    await action(happened).catch(show);
  });
}

function show(problem) {
  byId("problem").textContent = problem.message;
  byId("problem").hidden = false;
}

on("login", "submit", async ({ submitter }) => {
  const login = await ask("POST", "/login", { name: submitter.value }, false);
  sessionStorage.renewal = login.key;
  sessionStorage.who = `${login.name}, ${login.company}`;
  await enter();
});
on("ask", "submit", async ({ target, submitter }) => {
  submitter.disabled = true; // until it is sent; the question stays if that fails
  try {
    add(await ask("POST", "/messages", { question: target.question.value }));
    target.reset();
  } finally {
    submitter.disabled = false;
  }
});
on("leave", "click", async () => leave());
enter().catch(show);
