"use strict";
// The charts of a sweep's page: curves and fields, drawn as SVG and on canvases.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const COLORS = ["#0072B2", "#D55E00", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#777777"];
const CIVIDIS = ["#00224e", "#0d3070", "#35456c", "#4f576c", "#666970", "#7d7c78", "#958f78", "#b0a473", "#cbba69", "#e6d059", "#fee838"];
const SVG = "http://www.w3.org/2000/svg";

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "path", "line", "text", "circle", "title", "rect"].includes(tag);
  const element = svg ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}
const fixed = (value, digits = 2) => value.toFixed(digits).replace("-", "−");
const signed = (value) => (value >= 0 ? "+" : "") + fixed(value);
const spread = (v) => v === null ? "–" : fixed(v[0]) + (v[1] === null ? "" : " ± " + fixed(v[1]));
const numeric = (text) => text !== "" && isFinite(Number(text)) ? Number(text) : null;

// --- axes and curves -----------------------------------------------------------------------
function ticksOf(low, high, count = 5) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let t = Math.ceil(low / step - 1e-9) * step; t <= high + 1e-9 * step; t += step) ticks.push(Number(t.toPrecision(10)));
  return ticks;
}
function frame(width, height, left, xs, ys, x, y, xText = String) {
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}` });
  for (const tick of ys) {
    svg.append(make("line", { class: "grid", x1: left, x2: width - 6, y1: y(tick), y2: y(tick) }),
      make("text", { x: left - 5, y: y(tick) + 4, "text-anchor": "end" }, String(tick)));
  }
  for (const tick of xs) svg.append(make("text", { x: x(tick), y: height - 4, "text-anchor": "middle" }, xText(tick)));
  return svg;
}
const path = (points, attributes) => make("path", {
  fill: "none", "stroke-width": 1.6, "stroke-linejoin": "round",
  d: points.map(([px, py], i) => (i ? "L" : "M") + px.toFixed(1) + " " + py.toFixed(1)).join(""), ...attributes,
});
function parameterChart(axis, cells) {
  const having = cells.filter((c) => c.labels[axis] !== undefined && c.last);
  const labels = [...new Set(D.cells.map((c) => c.labels[axis]).filter((l) => l !== undefined))];
  if (labels.length < 2 || !having.length) return null;
  const numbers = labels.map(numeric), isNumeric = numbers.every((v) => v !== null);
  const order = isNumeric ? [...numbers].sort((a, b) => a - b) : labels;
  const others = cells.filter((c) => c.labels[axis] === undefined && c.last);
  const values = [...having, ...others].flatMap((c) => [c.last[0] - (c.last[1] ?? 0), c.last[0] + (c.last[1] ?? 0)]);
  let low = Math.min(...values), high = Math.max(...values);
  const margin = Math.max((high - low) * 0.08, 0.05);
  [low, high] = [low - margin, Math.min(100.5, high + margin)];
  const width = 440, height = 230, left = 42;
  const positive = isNumeric && order[0] > 0 && order.at(-1) / order[0] >= 50;
  const scale = (v) => positive ? Math.log(v) : v;
  const x = isNumeric
    ? (v) => left + 22 + (scale(v) - scale(order[0])) / (scale(order.at(-1)) - scale(order[0])) * (width - left - 50)
    : (l) => left + (order.indexOf(l) + 0.5) * (width - left - 8) / order.length;
  const y = (v) => 10 + (high - v) / (high - low) * (height - 34);
  const series = new Map();
  for (const cell of having) {
    const rest = Object.entries(cell.labels).filter(([name]) => name !== axis).map(([, label]) => label).join(", ");
    if (!series.has(rest)) series.set(rest, []);
    series.get(rest).push(cell);
  }
  const room = (width - left) / order.length / 6.3; // letters
  const cut = (l) => String(l).length > room ? String(l).slice(0, Math.max(4, room - 1)) + "…" : String(l);
  const svg = frame(width, height, left, order, ticksOf(low, high), x, y, cut);
  const legend = make("div", { class: "legend" });
  const name = (text, color, dash) => legend.append(make("span", {}, make("i", { style: `background:${dash ? "none" : color};border-top:${dash ? "2px dashed " + color : 0}` }), text));
  others.slice(0, 6).forEach((cell, index) => {
    const color = COLORS[(series.size + index) % COLORS.length];
    svg.append(path([[left, y(cell.last[0])], [width - 6, y(cell.last[0])]], { stroke: color, "stroke-dasharray": "5 4" }));
    name(cell.name, color, true);
  });
  [...series].forEach(([rest, members], index) => {
    const color = COLORS[index % COLORS.length], group = make("g", { class: "dots" });
    const place = (c) => isNumeric ? Number(c.labels[axis]) : c.labels[axis];
    const shift = isNumeric ? 0 : (index - (series.size - 1) / 2) * Math.min(9, 60 / series.size);
    const at = [...members].sort((a, b) => x(place(a)) - x(place(b))).map((c) => [x(place(c)) + shift, c]);
    if (isNumeric) group.append(path(at.map(([px, c]) => [px, y(c.last[0])]), { stroke: color, opacity: series.size > 8 ? 0.4 : 1 }));
    for (const [px, c] of at) {
      const std = c.last[1] ?? 0;
      group.append(make("line", { x1: px, x2: px, y1: y(c.last[0] - std), y2: y(c.last[0] + std), stroke: color, "stroke-width": 1.4 }),
        make("circle", { cx: px, cy: y(c.last[0]), r: 4, fill: color }, make("title", {}, `${c.name}: ${spread(c.last)} %, n = ${c.n}`)));
    }
    svg.append(group);
    if (rest && series.size <= 12) name(rest, color, false);
  });
  return make("figure", {}, make("figcaption", {}, make("span", {}, axis), make("span", { class: "quiet" }, "test, last epoch, %, ± std")), svg, legend);
}

// --- temperatures --------------------------------------------------------------------------
const W = 236, H = 170, LEFT = 26, TOP = 6, BOTTOM = 20;
const everything = D.cells.flatMap((c) => [
  ...c.runs.flatMap((run) => [...(run.temperature ?? []), ...(run.star ?? [])].map(([, value]) => value)),
  ...(c.landscape ? c.landscape.bounds : []),
]).filter((value) => value > 0);
const lowT = Math.min(1, ...everything) / 1.08, highT = Math.max(lowT * 2, ...everything) * 1.08;
const yT = (t) => TOP + Math.log(highT / t) / Math.log(highT / lowT) * (H - TOP - BOTTOM);
const ticksT = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100].filter((t) => t >= lowT && t <= highT);
function panel(first, last, kind = "") {
  const x = (e) => LEFT + (e - first) / Math.max(1e-9, last - first) * (W - LEFT - 6);
  const whole = ticksOf(first, last, 4).filter(Number.isInteger);
  const svg = frame(W, H, LEFT, whole, ticksT, x, yT);
  if (kind) svg.setAttribute("class", kind);
  return [svg, x];
}
function bounds(svg, cell) {
  for (const bound of cell.landscape?.bounds ?? []) {
    svg.append(make("line", { x1: LEFT, x2: W - 6, y1: yT(bound), y2: yT(bound), stroke: "var(--quiet)", "stroke-dasharray": "1 3" }));
  }
}
function trajectories(cell) {
  const told = cell.runs.filter((run) => run.temperature?.length);
  const last = Math.max(1, ...told.map((run) => run.epochs));
  const [svg, x] = panel(0, last);
  bounds(svg, cell);
  for (const run of told) {
    svg.append(path(run.temperature.map(([e, t]) => [x(e), yT(t)]), { stroke: "var(--heat)", opacity: told.length > 1 ? 0.75 : 1 }));
  }
  const star = told[0]?.star ?? [];
  if (star.length) svg.append(path(star.map(([e, t]) => [x(e), yT(t)]), { stroke: "var(--ink)", "stroke-width": 1.1, "stroke-dasharray": "4 3" }));
  return svg;
}
function landscape(cell) {
  const land = cell.landscape, epochs = land.epochs, count = land.temperatures.length;
  const bytes = Uint8Array.from(atob(land.bytes), (c) => c.charCodeAt(0));
  const edges = [epochs[0], ...epochs.slice(1).map((e, i) => (e + epochs[i]) / 2), epochs.at(-1)];
  const first = epochs.length > 1 ? edges[0] : edges[0] - 0.5, last = epochs.length > 1 ? edges.at(-1) : edges[0] + 0.5;
  const [svg, x] = panel(first, last, "bare");
  const canvas = make("canvas", { width: 2 * W, height: 2 * H, style: "left:0;top:0;width:100%;height:100%" });
  const pen = canvas.getContext("2d");
  pen.scale(2, 2);
  pen.beginPath();
  pen.rect(LEFT, TOP, W - LEFT - 6, H - TOP - BOTTOM);
  pen.clip();
  const ratio = Math.sqrt(land.temperatures[1] / land.temperatures[0]);
  epochs.forEach((_, i) => {
    const from = x(i ? edges[i] : first), to = x(i + 1 < epochs.length ? edges[i + 1] : last);
    for (let j = 0; j < count; j++) {
      const value = bytes[i * count + j] / 255 * (CIVIDIS.length - 1), t = land.temperatures[j];
      pen.fillStyle = mix(CIVIDIS[Math.floor(value)], CIVIDIS[Math.ceil(value)], value % 1);
      pen.fillRect(from, yT(t * ratio) - 0.3, to - from + 0.5, yT(t / ratio) - yT(t * ratio) + 0.6);
    }
  });
  bounds(svg, cell);
  const run = cell.runs.find((r) => r.seed === land.seed);
  const line = (run?.temperature ?? []).map(([e, t]) => [x(e), yT(t)]);
  if (line.length) svg.append(path(line, { stroke: "#fff", "stroke-width": 3.4, opacity: 0.8 }), path(line, { stroke: "#D55E00", "stroke-width": 1.8 }));
  return make("div", { class: "land" }, canvas, svg);
}
function mix(one, other, share) {
  const at = (color, i) => parseInt(color.slice(1 + 2 * i, 3 + 2 * i), 16);
  return `rgb(${[0, 1, 2].map((i) => Math.round(at(one, i) * (1 - share) + at(other, i) * share))})`;
}
function card(cell) {
  const told = cell.last ? `${spread(cell.last)} %` : cell.state;
  const pair = make("div", { class: "pair" });
  const figure = make("figure", { "data-cell": cell.name },
    make("figcaption", {}, make("span", {}, cell.name), make("span", { class: "quiet" }, told)), pair);
  figure.fill = () => { if (!pair.children.length) pair.append(trajectories(cell), ...(cell.landscape ? [landscape(cell)] : [])); };
  return figure;
}
