// The live half of the dashboard: it listens to the server's stream and to the
// pages in the frames, and writes down what it hears.
"use strict";
(() => {
  const body = document.body.dataset;
  const cards = new Map(); // instance → its elements and what is known of it
  const newest = new Map(); // page → newest revision that anybody has told of
  const rows = new Map(); // key of an event → its row in the feed
  const feed = document.getElementById("feed");
  const auto = document.getElementById("auto");
  const chooser = document.getElementById("page");
  const toast = document.getElementById("toast");
  const maxRows = 150;

  for (const el of document.querySelectorAll(".card")) {
    const is = {};
    for (const e of el.querySelectorAll("[data-is]")) is[e.dataset.is] = e;
    const index = Number(el.dataset.index);
    const card = {
      el, is, index,
      origin: `http://${body.host}:${el.dataset.port}`,
      frame: el.querySelector("iframe"),
      state: "", cut: false, page: 0, revision: 0, path: "", form: false, timer: 0,
    };
    cards.set(index, card);
    el.querySelector("[data-do=refresh]").addEventListener("click", () => show(card));
    for (const form of el.querySelectorAll("form")) form.addEventListener("submit", (e) => { e.preventDefault(); act(card, form); });
  }
  if (cards.size > 4) document.querySelector(".instances").classList.add("many");

  chooser.addEventListener("change", () => { for (const c of cards.values()) show(c, `/link/${chooser.value}`); });

  // show loads a path into the frame of a card, or again what is there.
  function show(card, path) {
    clearTimeout(card.timer);
    if (card.state !== "running") return;
    card.frame.src = card.origin + (path || card.path || `/link/${chooser.value}`);
  }

  async function act(card, form) {
    const what = form.action;
    if (what.endsWith("/notice")) {
      chooser.value = body.board;
      for (const c of cards.values()) if (c.page !== Number(body.board) && !c.form) show(c, `/link/${body.board}`);
    }
    try {
      const answer = await fetch(what, { method: "POST", redirect: "manual" });
      if (answer.type !== "opaqueredirect" && !answer.ok) say(await answer.text());
    } catch {
      say("The demonstration does not answer. Has it been stopped?");
    }
  }

  let toastTimer = 0;
  function say(text) {
    toast.textContent = text;
    toast.hidden = false;
    clearTimeout(toastTimer);
    toastTimer = setTimeout(() => { toast.hidden = true; }, 6000);
  }

  // What the pages in the frames tell of themselves.
  window.addEventListener("message", (e) => {
    for (const card of cards.values()) {
      if (e.source !== card.frame.contentWindow || e.origin !== card.origin) continue;
      const d = e.data;
      card.path = String(d.path);
      card.page = d.page;
      card.revision = d.revision;
      card.el.dataset.revision = d.revision;
      card.form = d.form;
      card.is.location.textContent = card.path;
      card.is.path.href = card.origin + card.path;
      card.is.cache.textContent = d.cache ? `cache ${d.cache}` : "";
      card.is.cache.className = `badge ${d.cache}`;
      if (d.page && d.revision > (newest.get(d.page) || 0)) newest.set(d.page, d.revision);
      for (const c of cards.values()) stale(c);
    }
  });

  // A frame is stale when anybody has told of a newer revision than it shows.
  // One that will be refreshed in a moment is not worth a word.
  function stale(card) {
    const now = newest.get(card.page) || 0;
    const old = card.state === "running" && card.page !== 0 && card.revision < now;
    card.is.stale.hidden = !old || card.timer !== 0;
    card.is.stale.textContent = old ? `stale: revision ${card.revision} of ${now}` : "";
  }

  // told refreshes a frame that shows what an event is about.
  function told(card, page) {
    if (!auto.checked || card.form || card.state !== "running") return;
    if (page && card.page && page !== card.page) return;
    clearTimeout(card.timer);
    card.timer = setTimeout(() => { card.timer = 0; show(card); }, 250);
  }

  function pulse(card, from) {
    card.el.style.setProperty("--from", from ? getComputedStyle(from.el).getPropertyValue("--tint") : "var(--tint)");
    card.el.classList.remove("pulse");
    void card.el.offsetWidth; // begin again if it is running
    card.el.classList.add("pulse");
  }

  function instance(i) {
    const card = cards.get(i.index);
    if (!card) return;
    const was = card.state;
    card.state = i.state;
    card.cut = i.cut;
    card.el.dataset.state = i.state;
    card.el.dataset.cut = i.cut;
    const others = i.counters.peers;
    const outage = i.counters.outage;
    const away = i.state === "running" && !i.cut && outage.since > 0;
    let status = i.state;
    if (i.state === "running") {
      status = i.cut ? "network cut" : document.body.classList.contains("off") ? "alone" : `in step with ${others} other${others === 1 ? "" : "s"}`;
      if (!i.cut && i.counters.status) status = i.counters.status;
      if (away) status = `${outage.provider} is away`;
    }
    card.el.dataset.away = away;
    const said = away ? `${outage.provider} takes nothing since ${clock(outage.since).slice(0, 8)}, so what is raised here waits: ${outage.reason}` : "";
    if (card.is.away.textContent !== said) card.is.away.textContent = said; // a screen reader says it again
    card.is.status.textContent = status;
    card.is.status.title = i.pid ? `process ${i.pid}` : "";
    if (i.counters.carrier) document.getElementById("carrier").textContent = i.counters.carrier;
    card.is.over.textContent = i.state === "stopped" ? `Instance ${i.index} is not running. ${i.note || ""}` : `Instance ${i.index} is starting.`;
    for (const name of ["raised", "received", "missed", "dropped"]) {
      card.is[name].textContent = i.counters[name];
      card.is[name].classList.toggle("some", i.counters[name] > 0);
    }
    const button = (name) => card.el.querySelector(`[data-do=${name}]`);
    button("notice").disabled = i.state !== "running";
    button("cut").disabled = i.state !== "running" || document.body.classList.contains("off");
    button("cut").textContent = i.cut ? "Reconnect" : "Cut network";
    button("cut").form.action = `/instances/${i.index}/${i.cut ? "heal" : "cut"}`;
    button("kill").disabled = i.state === "starting";
    button("kill").textContent = i.state === "stopped" ? "Start" : "Kill";
    button("kill").classList.toggle("bad", i.state !== "stopped");
    button("kill").form.action = `/instances/${i.index}/${i.state === "stopped" ? "start" : "kill"}`;
    if (i.state === "running" && was !== "running") {
      card.form = false;
      if (!card.frame.src) card.frame.src = card.frame.dataset.src;
      else show(card);
    }
    if (i.state !== "running") {
      card.is.cache.textContent = "";
      card.is.stale.hidden = true;
    }
  }

  const element = (tag, cls, text) => {
    const e = document.createElement(tag);
    if (cls) e.className = cls;
    if (text !== undefined) e.textContent = text;
    return e;
  };

  function clock(us) {
    const d = new Date(us / 1000);
    const two = (n) => String(n).padStart(2, "0");
    return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${String(d.getMilliseconds()).padStart(3, "0")}`;
  }

  // row makes a row of the feed, newest first.
  function row(r, cls, title, text) {
    feed.querySelector(".empty")?.remove();
    const li = element("li", `${cls} new`);
    const line = element("div", "line");
    line.append(element("strong", "", title), element("time", "", clock(r.at)));
    const chips = element("p", "chips");
    li.append(line, element("p", "what", text || ""), chips);
    feed.prepend(li);
    while (feed.children.length > maxRows) {
      const gone = feed.lastElementChild;
      rows.delete(gone.dataset.key);
      gone.remove();
    }
    return { li, chips, at: 0, by: 0, early: [], seen: new Map() };
  }

  function chip(entry, index, cls, text) {
    let c = entry.seen.get(index);
    if (!c) {
      c = element("span");
      entry.seen.set(index, c);
      // In the order of the instances, after the one that raised it.
      const later = [...entry.seen.keys()].filter((i) => i > index && i !== entry.by).sort((a, b) => a - b)[0];
      if (cls === "raised") entry.chips.prepend(c);
      else if (later !== undefined) entry.chips.insertBefore(c, entry.seen.get(later));
      else entry.chips.append(c);
    }
    c.className = `chip who n${index} ${cls}`;
    c.replaceChildren(element("span", "", `Instance ${index}`));
    if (text) c.append(element("span", "did", text));
  }

  function after(entry, at) {
    const ms = Math.max(0, at - entry.at) / 1000;
    return `after ${ms < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
  }

  function report(r) {
    const card = cards.get(r.instance);
    if (!card) return;
    if (r.page && r.revision > (newest.get(r.page) || 0)) newest.set(r.page, r.revision);
    if (r.kind === "raised" || r.kind === "received") {
      let entry = r.key && rows.get(r.key);
      if (!entry) {
        entry = row(r, "event", r.event, r.text);
        if (r.key) {
          entry.li.dataset.key = r.key;
          rows.set(r.key, entry);
        }
      }
      if (r.kind === "raised") {
        entry.at = r.at;
        entry.by = r.instance;
        chip(entry, r.instance, "raised", "raised");
        for (const [index, at] of entry.early) chip(entry, index, "received", after(entry, at));
        for (const index of r.cut || []) if (!entry.seen.has(index)) chip(entry, index, "cut", "cut off");
      } else {
        // The instances tell of it each in its own time, so a receipt may be
        // heard of before the raise.
        if (!entry.at) entry.early.push([r.instance, r.at]);
        chip(entry, r.instance, "received", entry.at ? after(entry, r.at) : "received");
      }
      if (live) pulse(card, cards.get(entry.by));
      told(card, r.page);
    } else if (r.kind === "missed") {
      const n = r.count === 1 ? "1 event" : r.count ? `${r.count} events` : "events";
      const entry = row(r, "missed", `Missed ${n}`, `${r.event || "any event"}, raised by ${r.from || "an unknown instance"} · ${r.reason}`);
      chip(entry, r.instance, "", "cache cleared");
      told(card, 0);
    } else if (r.kind === "away") {
      chip(row(r, "away", r.event, r.reason), r.instance, "", "");
    } else if (r.kind === "dropped") {
      const entry = row(r, "dropped", `Dropped ${r.count} ${r.unit || "frame"}${r.count === 1 ? "" : "s"}`, r.text ? `${r.reason} · ${r.text}` : r.reason);
      chip(entry, r.instance, "", "refused");
    } else {
      chip(row(r, "note", r.event, r.text), r.instance, "", "");
    }
    for (const c of cards.values()) stale(c);
  }

  // What comes right after the connection is the past: it is written down, but
  // nothing lights up.
  let live = false;
  let seen = 0;
  const stream = new EventSource("/events");
  stream.addEventListener("open", () => { live = false; setTimeout(() => { live = true; }, 300); });
  stream.addEventListener("hello", (e) => { if (JSON.parse(e.data) !== body.run) location.reload(); });
  stream.addEventListener("instance", (e) => instance(JSON.parse(e.data)));
  stream.addEventListener("report", (e) => {
    const n = Number(e.lastEventId.split("-")[1]);
    if (n <= seen) return;
    seen = n;
    report(JSON.parse(e.data));
  });
  stream.addEventListener("error", () => {
    for (const c of cards.values()) {
      c.el.dataset.state = c.state = "stopped";
      c.el.dataset.away = false;
      c.is.status.textContent = "the demonstration does not answer";
      c.is.over.textContent = "The demonstration does not answer. Has it been stopped?";
    }
  });
})();
