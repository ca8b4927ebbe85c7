"use strict";
(() => {
  const readOnly = "readOnly" in document.body.dataset;
  const { annotator, of } = document.body.dataset;
  const features = [...document.querySelectorAll(".feature")];
  if (!document.getElementById("task")) { document.documentElement.dataset.ready = "true"; return; }  // nothing to answer
  const task = document.getElementById("task").dataset;  // where answers go, and what all of them say
  const shared = JSON.parse(task.with);
  const history = `embedx undo ${document.body.dataset.of} ${annotator} ${task.post}`;
  const key = feature => ({ ...shared, ...JSON.parse(feature.dataset.key) });
  const same = (a, b) => Object.keys(b).every(name => a[name] === b[name]);
  const place = body => features.find(feature => same(body, key(feature)));
  const inField = target => target.matches("input:not([type=radio]):not([type=checkbox]), textarea, select");
  let current = 0, since = performance.now(), hidden = 0, left = 0;

  // The time that an answer takes: since this feature was looked at, without the time that the page was hidden.
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) left = performance.now();
    else if (left) { hidden += performance.now() - left; left = 0; }
  });
  const clock = () => { since = performance.now(); hidden = 0; };
  const seconds = feature => {  // with what was spent on it before
    const spent = Number(form(feature).dataset.seconds) + Math.max(0, performance.now() - since - hidden) / 1000;
    form(feature).dataset.seconds = spent.toFixed(1);
    return Number(spent.toFixed(1));
  };

  const go = (i, scroll = true) => {
    if (!features.length) return;
    const to = Math.min(Math.max(i, 0), features.length - 1);
    if (to !== current && scroll) clock();  // a pointer goes where it answers: that time began before
    current = to;
    features.forEach((feature, j) => {
      feature.classList.toggle("current", j === to);
    });
    if (scroll) {
      features[to].focus({ preventScroll: true });
      features[to].scrollIntoView({ block: "start" });
    }
  };

  const form = feature => feature.querySelector(".answer");
  const field = (feature, name) => form(feature).elements[name];
  const marks = feature => [...feature.querySelectorAll("[name=elsewhere]")];
  const read = feature => {
    const text = name => field(feature, name) ? { [name]: field(feature, name).value.trim() } : {};
    const vote = { answer: form(feature).querySelector("[name=answer]:checked")?.value ?? null };
    if (field(feature, "confidence")) vote.confidence = Number(field(feature, "confidence").value) || null;
    if (marks(feature).length) vote.elsewhere = marks(feature).filter(mark => mark.checked).map(mark => mark.value);
    return { ...vote, ...text("cue"), ...text("note"), ...text("right") };
  };
  const show = (feature, vote) => {
    form(feature).querySelectorAll("[name=answer]").forEach(radio => { radio.checked = radio.value === vote.answer; });
    for (const name of ["confidence", "cue", "note", "right"]) {
      if (field(feature, name)) field(feature, name).value = vote[name] ?? "";
    }
    marks(feature).forEach(mark => { mark.checked = (vote.elsewhere ?? []).includes(mark.value); });
    before.set(feature, read(feature));
  };
  const before = new Map(features.map(feature => [feature, read(feature)]));
  const line = (feature, text, waiting = false) => {
    const saved = feature.querySelector(".saved");
    saved.textContent = text;
    saved.classList.toggle("waiting", waiting);
  };
  const stack = () => { try { return JSON.parse(sessionStorage.getItem(history) ?? "[]"); } catch { return []; } };
  const push = entry => sessionStorage.setItem(history, JSON.stringify([...stack(), entry].slice(-200)));

  const send = (feature, vote, took) => {
    Saving.add(task.post, { of, annotator, ...key(feature), ...vote, seconds: took });
    line(feature, "saving…", true);
  };
  const vote = feature => {
    const now = read(feature), then = before.get(feature);
    if (now.answer === null) { line(feature, "choose an answer: it is saved with this"); return; }
    if (JSON.stringify(now) === JSON.stringify(then)) return;
    const spent = Number(form(feature).dataset.seconds);
    push({ key: key(feature), vote: then, seconds: spent, href: `${location.pathname}${location.search}#${feature.id}` });
    before.set(feature, now);
    send(feature, now, seconds(feature));
    clock();
    addCue(now.cue);
  };
  const cues = document.getElementById("cues");
  const addCue = cue => {
    if (cue && cues && ![...cues.options].some(option => option.value === cue)) cues.append(new Option("", cue));
  };
  const undo = () => {
    const entries = stack(), last = entries.pop();
    if (!last) { Saving.say("Nothing to undo"); return; }
    sessionStorage.setItem(history, JSON.stringify(entries));
    const feature = place(last.key);
    if (!feature) {  // of another page, which opens once this is saved
      Saving.listen(() => { location.href = last.href; });
      Saving.add(task.post, { of, annotator, ...last.key, ...last.vote, seconds: last.seconds });
      return;
    }
    show(feature, last.vote);
    send(feature, last.vote, last.seconds);
    form(feature).dataset.seconds = last.seconds;
    go(features.indexOf(feature));
  };

  const mine = item => item.path === task.post && item.body.annotator === annotator && place(item.body);
  Saving.listen((item, outcome, reply, own) => {
    const feature = mine(item);
    if (!feature) return;
    if (!own && outcome === "saved") show(feature, item.body);  // as another tab has it
    line(feature, outcome === "saved" ? (item.body.answer === null ? "taken back" : "saved") : reply.error, outcome !== "saved");
    if (reply.progress) progress(reply.progress);
  });
  const progress = told => {
    document.querySelectorAll("[data-count=done]").forEach(place => { place.textContent = told.done; });
    document.querySelectorAll("[data-count=class]").forEach(place => { place.textContent = told.class; });
    document.querySelectorAll("[data-count=left]").forEach(place => { place.textContent = told.left; });
    document.querySelectorAll(".progress progress").forEach(bar => { bar.value = told.done; });
  };
  // What waits from before this page was loaded is shown as the person left it.
  Saving.waiting().filter(mine).forEach(item => {
    show(place(item.body), item.body);
    line(place(item.body), "saving…", true);
  });

  let arrowed = false;
  document.addEventListener("keydown", event => { arrowed = event.key.startsWith("Arrow"); }, true);
  document.addEventListener("pointerdown", () => { arrowed = false; }, true);
  features.forEach((feature, i) => {
    form(feature).addEventListener("submit", event => event.preventDefault());
    let settling = 0;  // the arrow keys go through the answers on the way to one
    feature.addEventListener("change", event => {
      go(i, false);
      clearTimeout(settling);
      if (event.target.type === "radio" && arrowed) settling = setTimeout(() => vote(feature), 600);
      else vote(feature);
    });
    feature.addEventListener("pointerdown", () => go(i, false));
    feature.addEventListener("focusin", () => go(i, false));
  });

  // The zoom: one picture in every way it was drawn.
  const zoom = document.getElementById("zoom"), box = zoom.querySelector(".enlarged"), told = zoom.querySelector("p");
  let shots = [], at = 0;
  const draw = () => {
    const number = shots[at], ways = [...features[current].querySelectorAll(`.shot[data-shot="${number}"] img`)];
    box.replaceChildren(...ways.map(image => {
      const figure = document.createElement("figure"), copy = image.cloneNode(), caption = document.createElement("figcaption");
      copy.removeAttribute("width"); copy.removeAttribute("height"); copy.loading = "eager";
      if (image.closest(".row").classList.contains("overlay")) figure.hidden = document.body.classList.contains("no-overlays");
      caption.textContent = `${image.closest(".row").querySelector("h3").textContent}: ${image.nextElementSibling.textContent}`;
      figure.append(copy, caption);
      return figure;
    }));
    told.textContent = `${at + 1} of ${shots.length}`;
  };
  const enlarge = number => {
    shots = [...new Set([...features[current].querySelectorAll(".shot")].map(shot => Number(shot.dataset.shot)))];
    if (!shots.length) return;
    at = Math.max(0, shots.indexOf(number));
    draw();
    if (!zoom.open) zoom.showModal();
  };
  const step = by => { at = (at + by + shots.length) % shots.length; draw(); };
  document.querySelectorAll(".shot").forEach(shot => shot.addEventListener("click", () => {
    go(features.indexOf(shot.closest(".feature")), false);
    enlarge(Number(shot.dataset.shot));
  }));
  zoom.querySelectorAll("[data-step]").forEach(button => button.addEventListener("click", () => step(Number(button.dataset.step))));
  zoom.addEventListener("click", event => { if (event.target === zoom) zoom.close(); });
  zoom.addEventListener("close", () => features[current].focus({ preventScroll: true }));

  const overlays = () => {
    document.body.classList.toggle("no-overlays");
    sessionStorage.setItem("embedx overlays", document.body.classList.contains("no-overlays") ? "off" : "on");
    if (zoom.open) draw();
  };
  if (sessionStorage.getItem("embedx overlays") === "off") document.body.classList.add("no-overlays");

  const choose = n => {
    const radio = form(features[current]).querySelectorAll("[name=answer]")[n - 1];
    if (!radio || radio.disabled) return;
    radio.checked = true;
    radio.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const sure = n => {
    const choice = field(features[current], "confidence");
    if (!choice) return;
    choice.value = String(n);
    choice.dispatchEvent(new Event("change", { bubbles: true }));
  };
  const letters = () => { try { return localStorage.getItem("embedx keys") !== "off"; } catch { return true; } };
  const acts = { undo: () => !readOnly && undo(), overlays };
  document.querySelectorAll("[data-act]").forEach(button => button.addEventListener("click", acts[button.dataset.act]));
  document.addEventListener("keydown", event => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || event.isComposing) return;
    if (inField(event.target)) {
      const leave = event.key === "Enter" && event.target.closest(".answer") && !event.target.matches("select");
      if (leave) event.preventDefault();
      if (leave || (event.key === "Escape" && !event.target.closest("dialog"))) {
        event.target.blur();
        features[current]?.focus({ preventScroll: true });
      }
      return;
    }
    if (zoom.open) {
      const act = { ArrowLeft: () => step(-1), ArrowRight: () => step(1), z: () => zoom.close(), h: overlays }[event.key];
      if (act) { event.preventDefault(); act(); }
      return;
    }
    if (document.querySelector("dialog[open]") || !features.length || !letters()) return;
    // By the place of the key, as some keyboards have the digits above Shift.
    const digit = Number(/^(?:Digit|Numpad)([1-9])$/.exec(event.code)?.[1] ?? (/^[1-9]$/.test(event.key) ? event.key : 0));
    if (digit) {
      event.preventDefault();
      if (readOnly || event.repeat) return;
      if (event.shiftKey && digit <= 5) sure(digit);
      else if (!event.shiftKey) choose(digit);
      return;
    }
    const act = {
      j: () => go(current + 1), k: () => go(current - 1), u: () => !event.repeat && acts.undo(), z: () => enlarge(0), h: overlays,
      c: () => { const words = field(features[current], "cue") ?? field(features[current], "right"); words?.focus(); words?.select?.(); },
    }[event.key];
    if (act) { event.preventDefault(); act(); }
  });

  const asked = features.findIndex(feature => `#${feature.id}` === location.hash);
  const open = features.findIndex(feature => read(feature).answer === null);
  go(asked >= 0 ? asked : Math.max(open, 0), asked >= 0 || open > 0);
  document.documentElement.dataset.ready = "true";
})();
