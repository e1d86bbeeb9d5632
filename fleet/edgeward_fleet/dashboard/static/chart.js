// Draws the latency chart sharper than the server's SVG, and keeps it current. Without it the SVG stays.
"use strict";

(() => {
  const EVERY_MS = 10000;

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

  function budgetLine(budget, label) {
    return (plot) => {
      const y = Math.round(plot.valToPos(budget, "y", true));
      const { left, width } = plot.bbox;
      plot.ctx.save();
      plot.ctx.strokeStyle = plot.ctx.fillStyle = label;
      plot.ctx.setLineDash([6, 4]);
      plot.ctx.lineWidth = devicePixelRatio;
      plot.ctx.beginPath();
      plot.ctx.moveTo(left, y);
      plot.ctx.lineTo(left + width, y);
      plot.ctx.stroke();
      plot.ctx.restore();
    };
  }

  function options(place, data) {
    const quiet = resolved("quiet");
    const grid = { stroke: resolved("line"), width: 1 };
    const least = Math.min(...data.latency_ms, 1);
    const most = Math.max(...data.latency_ms, data.budget_ms * 10);
    const low = 10 ** Math.floor(Math.log10(Math.max(least, 0.01)));
    const high = 10 ** Math.ceil(Math.log10(most));
    const font = `12px ${getComputedStyle(document.body).fontFamily}`;
    const axis = { stroke: quiet, grid, ticks: grid, font };
    return {
      width: place.clientWidth,
      height: 220,
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: { y: { distr: 3, log: 10, range: () => [low, high] } },
      axes: [
        { ...axis, values: (_, at) => at.map((each) => new Date(each * 1000).toISOString().slice(11, 19)), space: 90 },
        { ...axis, size: 64, values: (_, ticks) => ticks.map((each) => (each === null ? "" : `${each} ms`)),
          filter: (_, ticks) => ticks.map((each) => (Number.isInteger(Math.round(Math.log10(each) * 1e6) / 1e6) ? each : null)) },
      ],
      series: [
        {},
        { label: "latency", stroke: resolved("accent"), paths: () => null,
          points: { show: true, size: 4, fill: resolved("accent"), width: 0 } },
      ],
      hooks: { draw: [budgetLine(data.budget_ms, resolved("bad"))] },
    };
  }

  async function draw(place) {
    const answer = await fetch(place.dataset.latency, { headers: { "X-Edgeward-Poll": "1" } });
    if (!answer.ok) return;
    const data = await answer.json();
    if (!data.at_s.length) return;
    const words = place.querySelector("svg")?.getAttribute("aria-label") || place.getAttribute("aria-label");
    const plot = new uPlot(options(place, data), [data.at_s, data.latency_ms]);
    place.replaceChildren(plot.root);
    place.setAttribute("role", "img");
    place.setAttribute("aria-label", words);
  }

  document.addEventListener("DOMContentLoaded", () => {
    for (const place of document.querySelectorAll("[data-latency]")) {
      const redraw = () => { if (!document.hidden) draw(place).catch(() => {}); };
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
