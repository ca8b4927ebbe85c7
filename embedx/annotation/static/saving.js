"use strict";
// Answers wait in this browser until the server has them on its disk: a lost connection or a full disk costs none.
const Saving = (() => {
  const token = document.querySelector("meta[name=embedx-token]").content;
  const key = `embedx ${document.body.dataset.dataset} ${document.body.dataset.backbone}`;
  const status = document.getElementById("status");
  const listeners = [];
  let memory = [], timer = 0;

  const load = () => {
    try { return JSON.parse(localStorage.getItem(key) ?? "[]"); } catch { return memory; }
  };
  const store = queue => {
    memory = queue;
    try { localStorage.setItem(key, JSON.stringify(queue)); } catch { /* private mode: they wait in this page */ }
  };
  const say = (text, bad = false) => {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("bad", bad);
  };
  const kept = n => n ? ` ${n} answer${n > 1 ? "s wait" : " waits"} in this browser.` : "";
  const tell = (item, outcome, reply) => listeners.forEach(listener => listener(item, outcome, reply));
  const alone = work => navigator.locks ? navigator.locks.request(key, work) : work();

  const post = (path, body) => fetch(path, {
    method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json", "x-embedx-token": token },
    signal: AbortSignal.timeout(20000),
  });

  async function one() {
    const item = load()[0];
    if (!item) return false;
    let response;
    try {
      response = await post(item.path, item.body);
    } catch {
      say(`No connection to the server.${kept(load().length)} Trying again.`, true);
      return later(1500);
    }
    const reply = await response.json().catch(() => ({}));
    if (response.status >= 500) {
      say(`Not saved: ${reply.error ?? "the server has a fault"}.${kept(load().length)} Trying again.`, true);
      return later(3000);
    }
    if (response.status === 403 || response.status === 421) {
      say(`Not saved: the server was started again. Open the address that it printed.${kept(load().length)}`, true);
      return later(5000);
    }
    store(load().filter(other => other.id !== item.id));
    if (response.ok) {
      say("Saved");
      tell(item, "saved", reply);
    } else {
      say(`Not taken: ${reply.error ?? response.statusText}`, true);
      tell(item, "refused", reply);
    }
    return true;
  }
  const later = ms => { clearTimeout(timer); timer = setTimeout(send, ms); return false; };
  const send = () => alone(async () => { while (await one()) { /* until none is left */ } });

  window.addEventListener("online", send);
  if (load().length) send();
  return {
    add(path, body) {
      const item = { id: `${Date.now()} ${Math.random()}`, path, body };
      store([...load(), item]);
      say("Saving…");
      send();
      return item.id;
    },
    waiting: () => load(),
    listen: listener => listeners.push(listener),
    post, say,
  };
})();
