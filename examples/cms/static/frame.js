// Inside the dashboard an instance's page tells where it is, so that the
// dashboard can refresh it in place. On its own it does nothing.
"use strict";
(() => {
  if (window.parent === window) return;
  const body = document.body.dataset;
  if (!body.dashboardPort) return;
  const origin = `${location.protocol}//${location.hostname}:${body.dashboardPort}`;
  const say = () => window.parent.postMessage({
    path: location.pathname,
    title: document.title,
    cache: body.cache || "",
    page: Number(body.page) || 0,
    revision: Number(body.revision) || 0,
    form: document.querySelector("form.text") !== null,
  }, origin);
  say();
  window.addEventListener("pageshow", (e) => { if (e.persisted) say(); });
})();
