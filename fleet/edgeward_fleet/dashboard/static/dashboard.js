// Refreshes what htmx does not: how long ago, copy buttons, the dialog, what is read out. Pages read without any of it.
"use strict";

(() => {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];

  function ago(seconds) {
    const past = Math.max(0, Math.round(Math.abs(seconds)));
    const [size, unit] = units.find(([each]) => past >= each) || [1, "s"];
    const words = `${Math.floor(past / size)} ${unit}`;
    return seconds < 0 ? `in ${words}` : past < 2 ? "just now" : `${words} ago`;
  }

  // The fleet's clock counts, not that of the laptop: both are read when the page comes.
  const ahead = Date.parse(document.documentElement.dataset.now) - performance.timeOrigin || 0;

  function tellTimes(root) {
    for (const each of root.querySelectorAll("time[datetime]:not([data-exact])")) {
      if (!each.title) each.title = each.textContent;
      const words = ago((Date.now() + ahead - Date.parse(each.dateTime)) / 1000);
      if (each.textContent !== words) each.textContent = words;
    }
  }

  function showCopyButtons(root) {
    for (const each of root.querySelectorAll("button[data-copy][hidden]")) each.hidden = !navigator.clipboard;
  }

  async function copy(button) {
    try {
      await navigator.clipboard.writeText(button.dataset.copy);
      button.textContent = "Copied";
    } catch {
      button.textContent = "Select it by hand";
    }
    announce(button.textContent);
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  }

  function announce(words) {
    const place = document.getElementById("announce");
    if (place && words && place.textContent !== words) place.textContent = words;
  }

  function refreshed(root) {
    tellTimes(root);
    showCopyButtons(root);
  }

  document.addEventListener("DOMContentLoaded", () => {
    refreshed(document);
    setInterval(() => tellTimes(document), 1000);
  });

  document.addEventListener("click", (event) => {
    const target = event.target instanceof Element ? event.target : null;
    const button = target?.closest("button[data-copy]");
    if (button) copy(button);
    const close = target?.closest("[data-close]");
    const dialog = close?.closest("dialog");
    if (dialog) {
      event.preventDefault();
      dialog.close();
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(target)) menu.open = false;
    }
  });

  document.addEventListener("keydown", (event) => {
    const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
    if (menu) {
      menu.open = false;
      menu.querySelector("summary").focus();
    }
  });

  // What refreshes itself waits while nobody looks, while somebody writes into the dialog (a log-in would take the
  // words away), and while somebody selects text in it; that, not for ever: what stands still is read as the present.
  const SELECTING_MS = 60000;
  let selectingSince = 0;

  function isSelecting() {
    const selected = getSelection();
    const inside = selected?.anchorNode?.parentElement?.closest(".live");
    if (!inside || selected.isCollapsed) {
      selectingSince = 0;
      return false;
    }
    selectingSince ||= Date.now();
    return Date.now() - selectingSince < SELECTING_MS;
  }

  function mustWait() {
    return document.hidden || document.getElementById("dialog")?.open || isSelecting();
  }

  document.addEventListener("htmx:beforeRequest", (event) => {
    if (event.detail.elt.id === "live" && mustWait()) event.preventDefault();
  });

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden && document.getElementById("live")) htmx.trigger("#live", "refresh");
  });

  // Who walks through a part by keyboard stays on the same link when its successor takes its place.
  const FOCUSABLE = "a[href], button, summary, input, select";
  const nameOf = (each) => [each.tagName, each.id, each.getAttribute("href"), each.textContent.trim()].join(" ");
  let place = null;

  document.addEventListener("htmx:beforeSwap", () => {
    const held = document.activeElement?.closest(".live");
    if (!held) return;
    const name = nameOf(document.activeElement);
    const alike = [...held.querySelectorAll(FOCUSABLE)].filter((each) => nameOf(each) === name);
    place = { part: held.id, name, number: alike.indexOf(document.activeElement) };
  });

  document.addEventListener("htmx:afterSettle", () => {
    if (!place) return;
    const { part, name, number } = place;
    place = null;
    if (document.activeElement && document.activeElement !== document.body) return;
    const alike = [...(document.getElementById(part)?.querySelectorAll(FOCUSABLE) ?? [])].filter((each) => nameOf(each) === name);
    (alike[number] ?? alike[0])?.focus({ preventScroll: true });
  });

  document.addEventListener("htmx:afterSwap", (event) => {
    const dialog = document.getElementById("dialog");
    if (event.detail.target === dialog && !dialog.open) dialog.showModal();
  });

  document.addEventListener("htmx:load", (event) => {
    const live = document.getElementById("live");
    refreshed(event.detail.elt);
    if (event.detail.elt === live) announce(live.dataset.sentence);
  });

  // A question that can no longer be asked is a page that says why.
  document.addEventListener("htmx:responseError", (event) => {
    const { target, xhr, pathInfo } = event.detail;
    if (target?.id === "dialog" && xhr.status !== 401) location.assign(pathInfo.requestPath);
  });

  // A second click while the first is on its way asks for nothing new.
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post") return;
    if (event.target.dataset.sent) event.preventDefault();
    event.target.dataset.sent = "1";
  });
  addEventListener("pageshow", () => {
    for (const each of document.querySelectorAll("form[data-sent]")) delete each.dataset.sent;
  });

  const connection = (isLost) => {
    const place = document.getElementById("connection");
    if (place) place.hidden = !isLost;
  };
  const isOurs = (xhr) => xhr.status === 204 || xhr.responseText.startsWith('<div id="live"');
  document.addEventListener("htmx:sendError", () => connection(true));
  document.addEventListener("htmx:timeout", () => connection(true));  // a fleet that hangs says nothing at all
  document.addEventListener("htmx:beforeOnLoad", (event) => {
    const { elt, xhr } = event.detail;
    if (elt.id === "live") connection(!isOurs(xhr));
  });

  // A proxy's own page, such as its log-in, must not take the place of the part that asks again.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, xhr } = event.detail;
    if (target?.id === "live" && !isOurs(xhr)) event.detail.shouldSwap = false;
  });
})();
