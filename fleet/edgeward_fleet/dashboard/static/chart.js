// Draws the latency chart sharper than the server's SVG, and keeps it current. Without it the SVG stays.
"use strict";

(() => {
  const EVERY_MS = 10000;
  const HEIGHT = 240;
  const drawn = new WeakMap();

  // A canvas knows no light-dark(): let the browser resolve it.
  function resolved(name) {
    const probe = document.createElement("i");
    probe.className = `colour-of-${name}`;
    probe.hidden = true;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  }

  function budgetLine(budget, colour) {
    return (plot) => {
      const y = Math.round(plot.valToPos(budget, "y", true));
      const { left, width } = plot.bbox;
      plot.ctx.save();
      plot.ctx.strokeStyle = colour;
      plot.ctx.setLineDash([6 * devicePixelRatio, 4 * devicePixelRatio]);
      plot.ctx.lineWidth = 1.5 * devicePixelRatio;
      plot.ctx.beginPath();
      plot.ctx.moveTo(left, y);
      plot.ctx.lineTo(left + width, y);
      plot.ctx.stroke();
      plot.ctx.restore();
    };
  }

  // What the answer under the pointer took, and when.
  function tip(data) {
    const shown = document.createElement("div");
    shown.className = "tip";
    shown.hidden = true;
    return {
      init: (plot) => plot.over.append(shown),
      setCursor: (plot) => {
        const index = plot.cursor.idx;
        shown.hidden = index === null || index === undefined || plot.cursor.left < 0;
        if (shown.hidden) return;
        const took = data.latency_ms[index];
        shown.textContent = `${took.toPrecision(3)} ms at ${clock(data.at_s[index])}`;
        const x = plot.valToPos(data.at_s[index], "x");
        const isRight = x > plot.over.clientWidth / 2;
        shown.style.left = isRight ? "auto" : `${x + 10}px`;
        shown.style.right = isRight ? `${plot.over.clientWidth - x + 10}px` : "auto";
        shown.style.top = `${Math.max(0, plot.valToPos(took, "y") - 30)}px`;
      },
    };
  }

  const clock = (second) => new Date(second * 1000).toISOString().slice(11, 19);

  function dots(label, colour) {
    return { label, stroke: colour, paths: () => null, points: { show: true, size: 4.5, fill: colour, width: 0 } };
  }

  function options(place, data) {
    const quiet = resolved("quiet");
    const grid = { stroke: resolved("line"), width: 1 };
    const least = Math.min(...data.latency_ms, 1);
    const most = Math.max(...data.latency_ms, data.budget_ms * 10);
    const low = 10 ** Math.floor(Math.log10(Math.max(least, 0.01)));
    const high = 10 ** Math.ceil(Math.log10(most));
    const isPower = (each) => Number.isInteger(Math.round(Math.log10(each) * 1e6) / 1e6);
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: quiet, grid, ticks: grid, font };
    const over = tip(data);
    return {
      width: place.clientWidth,
      height: HEIGHT,
      legend: { show: false },
      cursor: { drag: { x: false, y: false }, y: false, points: { size: 9 } },
      scales: { y: { distr: 3, log: 10, range: () => [low, high] } },
      axes: [
        { ...axis, values: (_, at) => at.map(clock), space: 90 },
        { ...axis, size: 64, grid: { ...grid, filter: (_, ticks) => ticks.map((each) => (isPower(each) ? each : null)) },
          ticks: { ...grid, filter: (_, ticks) => ticks.map((each) => (isPower(each) ? each : null)) },
          values: (_, ticks) => ticks.map((each) => (each === null ? "" : `${each} ms`)),
          filter: (_, ticks) => ticks.map((each) => (isPower(each) ? each : null)) },
      ],
      series: [{}, dots("within", resolved("accent")), dots("over", resolved("bad"))],
      hooks: { init: [over.init], setCursor: [over.setCursor], draw: [budgetLine(data.budget_ms, resolved("bad"))] },
    };
  }

  async function draw(place) {
    const answer = await fetch(place.dataset.latency, { headers: { "X-Edgeward-Poll": "1" } });
    if (!answer.ok) return;
    const data = await answer.json();
    if (!data.at_s.length) return;
    const isOver = data.latency_ms.map((each) => each > data.budget_ms);
    const columns = [false, true].map((wanted) => data.latency_ms.map((each, at) => (isOver[at] === wanted ? each : null)));
    const plot = new uPlot(options(place, data), [data.at_s, ...columns]);
    place.replaceChildren(plot.root);
    drawn.get(place)?.destroy();  // it listens to the window, and would be kept with its canvas
    drawn.set(place, plot);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", data.summary);
    const summary = place.closest("figure")?.querySelector("[data-summary]");
    if (summary) summary.textContent = data.summary;
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-latency]")) {
      const redraw = () => { if (!document.hidden && !place.matches(":hover")) draw(place).catch(() => {}); };
      redraw();
      setInterval(redraw, EVERY_MS);
      let width = place.clientWidth;
      new ResizeObserver(() => {
        if (Math.abs(place.clientWidth - width) > 20) {
          width = place.clientWidth;
          redraw();
        }
      }).observe(place);
      matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    }
  });
})();
