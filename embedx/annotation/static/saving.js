"use strict";
// Answers wait in this browser until the server has them on its disk: a lost connection or a full disk costs none.
const Saving = (() => {
  const token = document.querySelector("meta[name=embedx-token]").content;
  const key = `embedx ${document.body.dataset.of}`;  // of one discovery: its answers go to no other
  const status = document.getElementById("status");
  const listeners = [], tabs = new BroadcastChannel(key);
  let memory = [], timer = 0, count = 0;

  // Each answer under a name of its own, so that tabs that write at once overwrite nothing; the names sort by time.
  const parsed = text => { try { return JSON.parse(text); } catch { return null; } };
  const load = () => {
    let names = [];
    try { names = Object.keys(localStorage).filter(name => name.startsWith(`${key} @`)).sort(); } catch { /* none */ }
    return [...names.map(name => parsed(localStorage.getItem(name))).filter(Boolean), ...memory];
  };
  const keep = item => {
    try { localStorage.setItem(item.id, JSON.stringify(item)); } catch { memory.push(item); /* waits in this page */ }
  };
  const drop = item => {
    memory = memory.filter(other => other.id !== item.id);
    try { localStorage.removeItem(item.id); } catch { /* it was in memory */ }
  };
  const say = (text, bad = false) => {
    if (status.textContent !== text) status.textContent = text;
    status.classList.toggle("bad", bad);
  };
  const kept = n => {
    if (!n) return "";
    const where = memory.length ? "in this page alone: keep it open" : "in this browser";
    return ` ${n} answer${n > 1 ? "s wait" : " waits"} ${where}.`;
  };
  const tell = (item, outcome, reply, own) => listeners.forEach(listener => listener(item, outcome, reply, own));
  let chain = Promise.resolve();  // one at a time in this page, and by the lock in all tabs, where a page may have one
  const alone = work => {
    chain = chain.then(() => navigator.locks ? navigator.locks.request(key, work) : work()).catch(() => {});
    return chain;
  };

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
      const why = reply.error ?? "the server was started again. Open the address that it printed";
      say(`Not saved: ${why}.${kept(load().length)}`, true);
      return later(5000);
    }
    drop(item);
    const [text, outcome] = response.ok ? ["Saved", "saved"] : [`Not taken: ${reply.error ?? response.statusText}`, "refused"];
    say(text, !response.ok);
    tell(item, outcome, reply, true);
    tabs.postMessage([text, item, outcome, reply]);
    return true;
  }
  const later = ms => { clearTimeout(timer); timer = setTimeout(send, ms); return false; };
  const send = () => alone(async () => { while (await one()) { /* until none is left */ } });

  tabs.onmessage = ({ data: [text, item, outcome, reply] }) => {  // another tab has sent what may be of this one
    if (text !== "Saved" || !load().length) say(text, outcome !== "saved");
    tell(item, outcome, reply, false);
  };
  window.addEventListener("online", send);
  window.addEventListener("beforeunload", event => { if (memory.length) event.preventDefault(); });
  if (load().length) send();
  return {
    add(path, body) {
      const time = Math.round(performance.timeOrigin + performance.now());
      const item = { id: `${key} @${time} ${String(count++).padStart(6, "0")} ${Math.random()}`, path, body };
      keep(item);
      say("Saving…");
      send();
      return item.id;
    },
    waiting: () => load(),
    listen: listener => listeners.push(listener),
    post, say,
  };
})();
