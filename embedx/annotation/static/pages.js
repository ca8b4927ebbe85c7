"use strict";
(() => {
  const help = document.getElementById("help");
  const inField = target => target.matches("input:not([type=radio]):not([type=checkbox]), textarea, select");
  const letters = document.getElementById("letters");
  try { letters.checked = localStorage.getItem("embedx keys") !== "off"; } catch { /* they stay on */ }
  letters.addEventListener("change", () => localStorage.setItem("embedx keys", letters.checked ? "on" : "off"));
  document.getElementById("help-open").addEventListener("click", () => help.showModal());
  help.addEventListener("click", event => { if (event.target === help) help.close(); });
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
    if (inField(event.target) || !(letters.checked || help.open)) return;
    const link = rel => document.querySelector(`#main a[rel=${rel}]`)?.click();
    const act = {
      "?": () => help.open ? help.close() : help.showModal(), "/": () => document.getElementById("query").select(),
      n: () => link("next"), p: () => link("prev"),
    }[event.key];
    if (!act || (document.querySelector("dialog[open]") && event.key !== "?")) return;
    event.preventDefault();
    act();
  });

  document.getElementById("who")?.addEventListener("submit", async event => {
    event.preventDefault();
    const fields = event.target.elements;
    const response = await Saving.post("/who", { annotator: fields.annotator.value, blind: fields.blind.checked }).catch(() => null);
    if (response?.ok) location.reload();
    else Saving.say((await response?.json().catch(() => null))?.error ?? "No connection to the server.", true);
  });
  document.querySelectorAll("#choose select").forEach(select => select.addEventListener("change", () => select.form.submit()));

  // The accuracy of the class is worked out when the server starts.
  const accuracy = document.getElementById("accuracy");
  const ask = async left => {
    const told = await fetch(`/accuracy/${accuracy.dataset.label}`).then(response => response.json()).catch(() => ({}));
    if (told.text) accuracy.textContent = told.text;
    else if (left) setTimeout(() => ask(left - 1), 2000);
  };
  if (accuracy?.dataset.label) ask(60);

  // Work in the background: its progress is asked for while there is any.
  const place = document.getElementById("jobs"), news = document.getElementById("job-news"), items = new Map();
  const open = job => job.state === "running" || job.state === "waiting";
  const draw = job => {
    if (!items.has(job.id)) {
      const item = document.createElement("li"), bar = document.createElement("progress"), text = document.createElement("span");
      bar.setAttribute("aria-label", job.name);
      item.append(bar, text);
      place.append(item);
      items.set(job.id, { item, bar, text });
    }
    const { bar, text } = items.get(job.id), words = `${job.name}: ${job.text}`;
    bar.hidden = !open(job);
    bar.max = job.total || 1;
    if (job.total) bar.value = job.done; else bar.removeAttribute("value");
    if (text.textContent !== words) text.textContent = words;
  };
  let busy = new Set();
  const look = async () => {
    const jobs = await fetch("/jobs").then(response => response.json()).catch(() => null);
    if (!jobs) { setTimeout(look, 3000); return; }
    items.forEach(({ item }, id) => { if (!jobs.some(job => job.id === id)) { item.remove(); items.delete(id); } });
    jobs.forEach(draw);
    const ended = jobs.filter(job => busy.has(job.id) && !open(job));
    busy = new Set(jobs.filter(open).map(job => job.id));
    if (ended.length) document.querySelectorAll("[data-job]").forEach(button => { button.disabled = false; });
    if (ended.some(job => job.state === "done")) {
      const again = document.createElement("button");
      again.type = "button";
      again.textContent = "Show it";
      again.addEventListener("click", () => location.reload());
      news.replaceChildren("Finished. ", again);
    }
    if (busy.size) setTimeout(look, 700);
  };
  document.querySelectorAll("[data-job]").forEach(button => button.addEventListener("click", async () => {
    button.disabled = true;
    const label = button.dataset.label ? Number(button.dataset.label) : null;
    const response = await Saving.post("/job", { kind: button.dataset.job, label, name: button.dataset.name ?? "" }).catch(() => null);
    if (response?.ok) { busy.add((await response.json()).id); look(); return; }
    button.disabled = false;
    Saving.say((await response?.json().catch(() => null))?.error ?? "No connection to the server.", true);
  }));
  if (place) look();
})();
