// Draws the facts of a run. All text is inserted as text, never as HTML.
"use strict";

const facts = JSON.parse(document.getElementById("facts").textContent);
const byId = (id) => document.getElementById(id);

const state = {
  split: Object.keys(facts.splits)[0],
  setting: 0, // which of the latencies
  cost: "flops",
  share: 0.5, // where the limit is between the cheapest (0) and the most expensive (1) size
  pinned: null, // a size that was clicked, instead of the best that fits
};

// Formats of numbers

const number = (value, digits) =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

const shortly = (value) => String(Number(value.toPrecision(4)));
const prefix = (value) => [[1e12, " T"], [1e9, " G"], [1e6, " M"], [1e3, " K"]].find(([size]) => value >= size) || [1, ""];
const threeDigits = (value) => number(value, value < 10 ? 2 : value < 100 ? 1 : 0);

function scaled(value) {
  const [factor, sign] = prefix(value);
  return threeDigits(value / factor) + sign;
}

function scaledTick(value) {
  const [factor, sign] = prefix(value);
  return shortly(value / factor) + sign;
}

const milliseconds = (value) => `${threeDigits(value)} ms`;

// Costs and scores of a size

const costs = {
  parameters: { title: "Parameters", of: (size) => size.parameters, show: scaled, tick: scaledTick },
  flops: { title: "FLOPs", of: (size) => size.flops, show: scaled, tick: scaledTick },
  latency: {
    title: "Latency",
    of: (size) => facts.latencies[state.setting].milliseconds[size.name],
    show: milliseconds,
    tick: (value) => `${shortly(value)} ms`,
  },
};
if (!facts.latencies.length) delete costs.latency;
const detail = () => ({
  parameters: "stored numbers",
  flops: `one text of ${facts.length} tokens`,
  latency: facts.latencies.length ? facts.latencies[state.setting].setting : "",
});

// The export format that matches the timed backend.
const formats = { jax: "stablehlo", onnxruntime: "onnx", "onnxruntime-int8": "onnx --int8" };
const backend = () => (state.cost === "latency" ? facts.latencies[state.setting].backend : "");
const formatOf = () => formats[backend()] || "hf";

const scoreOf = (size) => size.scores[state.split];
const showScore = (score) => number(score.value, 2) + (score.error === null ? "" : ` ± ${number(score.error, 1)}`);
const commandOf = (size) => `${facts.command} --sub ${size.name} --format ${formatOf()} --out ${size.name}`;
const teacher = () => facts.teacher[state.split];
const scored = () => facts.sizes.filter((size) => scoreOf(size));
const priced = (cost) => scored().filter((size) => costs[cost].of(size) !== undefined);

function titleOf(size) {
  return size.width === null ? size.name : `width\u00a0${size.width} · depth\u00a0${size.depth}`;
}

// The Pareto front, cheapest first.
function frontOf(cost) {
  const { of } = costs[cost];
  const ordered = [...priced(cost)].sort((a, b) => of(a) - of(b) || scoreOf(b).value - scoreOf(a).value);
  let best = -Infinity;
  return ordered.filter((size) => {
    const better = scoreOf(size).value > best;
    if (better) best = scoreOf(size).value;
    return better;
  });
}

function range(values) {
  return { low: Math.min(...values), high: Math.max(...values) };
}

function limit() {
  const { low, high } = range(priced(state.cost).map(costs[state.cost].of));
  return low + state.share * (high - low);
}

// Both are false for a size that was not measured.
const fits = (size) => costs[state.cost].of(size) <= limit() * (1 + 1e-9);
const isDearer = (size) => costs[state.cost].of(size) > limit() * (1 + 1e-9);
const bestFit = () => frontOf(state.cost).filter(fits).at(-1);
const picked = () => scored().find((size) => size.name === state.pinned) || bestFit();

// Elements

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const defined = (term, ...values) => make("div", {}, make("dt", {}, term), make("dd", {}, ...values));

// The tooltip

const tip = byId("tip");
let pointedAt = null;

function showTip(target, title, lines, command) {
  pointedAt = target;
  tip.replaceChildren(make("b", {}, title), ...lines.map((line) => make("div", {}, line)));
  if (command) tip.append(make("code", {}, command));
  tip.hidden = false;
  placeTip();
}

function placeTip() {
  if (tip.hidden) return;
  const at = pointedAt.getBoundingClientRect();
  const own = tip.getBoundingClientRect();
  const left = Math.min(Math.max(8, at.left + at.width / 2 - own.width / 2), innerWidth - own.width - 8);
  const above = at.top - own.height - 8;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
}

function hideTip() {
  tip.hidden = true;
}

function linesOf(size) {
  const shown = Object.keys(costs).filter((cost) => costs[cost].of(size) !== undefined);
  return [
    `${facts.metric} ${showScore(scoreOf(size))} on ${state.split}`,
    shown.map((cost) => `${costs[cost].show(costs[cost].of(size))} ${cost === "latency" ? "" : cost === "flops" ? "FLOPs" : cost}`.trim()).join(" · "),
  ];
}

// Makes an element stand for a size: it shows a tooltip, takes the focus, and can be picked.
function offer(element, size) {
  element.dataset.sub = size.name;
  element.setAttribute("role", "button");
  element.setAttribute("aria-label", `${titleOf(size)}: ${linesOf(size).join(", ")}`);
  const show = () => showTip(element.querySelector(".dot") || element, `${titleOf(size)}  (${size.name})`, linesOf(size), commandOf(size));
  element.addEventListener("pointerenter", show);
  element.addEventListener("focus", show);
  element.addEventListener("pointerleave", hideTip);
  element.addEventListener("blur", hideTip);
  element.addEventListener("click", () => pin(size));
  element.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    pin(size);
  });
}

// Makes many elements one tab stop; the arrow keys move between them.
function rove(elements, across = 1) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across };
  elements.forEach((element, i) => {
    element.setAttribute("tabindex", i ? "-1" : "0");
    element.addEventListener("keydown", (event) => {
      const next = elements[i + (steps[event.key] || 0)];
      if (!(event.key in steps) || !next) return;
      event.preventDefault();
      elements.forEach((other) => other.setAttribute("tabindex", other === next ? "0" : "-1"));
      next.focus();
    });
  });
}

// Charts

function ticks(low, high, count) {
  const rough = (high - low || Math.abs(high) || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

// An empty chart, as wide as its place, with the functions from values to coordinates.
function chart(place, height, xs, ys, showX, showY, label) {
  const width = Math.max(220, place.clientWidth);
  const inner = { left: 44, right: width - 14, top: 14, bottom: height - 26 };
  const margin = (values, part) => {
    const { low, high } = range(values);
    const room = (high - low || Math.abs(high) || 1) * part;
    return { low: low - room, high: high + room };
  };
  const x = margin(xs, 0.05);
  const y = margin(ys, 0.1);
  const toX = (value) => inner.left + ((value - x.low) / (x.high - x.low)) * (inner.right - inner.left);
  const toY = (value) => inner.bottom - ((value - y.low) / (y.high - y.low)) * (inner.bottom - inner.top);
  const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": label });
  for (const value of ticks(y.low, y.high, height / 52)) {
    svg.append(draw("line", { class: "rule", x1: inner.left, x2: inner.right, y1: toY(value), y2: toY(value) }));
    svg.append(draw("text", { x: inner.left - 8, y: toY(value) + 4, "text-anchor": "end" }, showY(value)));
  }
  for (const value of ticks(x.low, x.high, width / 95)) {
    svg.append(draw("text", { x: toX(value), y: inner.bottom + 19, "text-anchor": "middle" }, showX(value)));
  }
  svg.append(draw("line", { class: "axis", x1: inner.left, x2: inner.right, y1: inner.bottom, y2: inner.bottom }));
  place.append(svg);
  return { svg, inner, toX, toY };
}

const path = (points) => points.map(([x, y], i) => `${i ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function drawFronts() {
  byId("teacher-legend").hidden = !teacher();
  byId("compared").textContent = compared();
  byId("compared").hidden = !byId("compared").textContent;
  const places = Object.keys(costs).map((cost) => figure(costs[cost].title, detail()[cost], { "data-cost": cost }));
  byId("fronts").replaceChildren(...places);
  places.forEach(drawFront); // all are in the page before the first one's width is read
}

// What the scores of the split are to be compared with, in a sentence each.
function compared() {
  const most = facts.majority[state.split];
  return [
    ...(teacher() ? [`The teacher scores ${showScore(teacher())} on ${state.split}.`] : []),
    ...(most ? [`Always answering the most frequent class, ${most[0]}, would score ${number(most[1], 2)}.`] : []),
  ].join(" ");
}

function figure(title, words, attributes = {}) {
  return make("figure", attributes, make("figcaption", {}, make("b", {}, title), ` · ${words}`));
}

function drawFront(place) {
  const { cost } = place.dataset;
  const { title, of } = costs[cost];
  const sizes = [...priced(cost)].sort((a, b) => of(a) - of(b));
  const front = frontOf(cost);
  const above = teacher() ? `; the teacher scores ${number(teacher().value, 2)}` : "";
  const label = `${facts.metric} against ${title.toLowerCase()}: ${sizes.length} sizes, ${front.length} on the Pareto front${above}`;
  const values = [...scored().map((size) => scoreOf(size).value), ...(teacher() ? [teacher().value] : [])];
  const { svg, inner, toX, toY } = chart(place, 270, sizes.map(of), values, costs[cost].tick, shortly, label);
  const high = { y: inner.top, height: inner.bottom - inner.top };
  svg.append(draw("rect", { class: "beyond", ...high }), draw("line", { class: "budget", y1: inner.top, y2: inner.bottom }));
  if (teacher()) {
    const y = toY(teacher().value);
    svg.append(draw("line", { class: "teacher-line", x1: inner.left, x2: inner.right, y1: y, y2: y }));
    svg.append(draw("text", { class: "teacher-name", x: inner.left + 4, y: y - 5 }, `teacher ${number(teacher().value, 2)}`));
  }
  svg.append(draw("path", { class: "front-line", d: path(front.map((size) => [toX(of(size)), toY(scoreOf(size).value)])) }));
  const points = sizes.map((size) => {
    const at = { cx: toX(of(size)), cy: toY(scoreOf(size).value) };
    const kind = front.includes(size) ? "point on-front" : "point";
    const point = draw("g", { class: kind }, ...[["reach", 14], ["ring", 9.5], ["dot", 5.5]].map(([name, r]) => draw("circle", { class: name, r, ...at })));
    offer(point, size);
    return point;
  });
  const behindFirst = [...points].sort((a, b) => a.classList.contains("on-front") - b.classList.contains("on-front"));
  svg.append(...behindFirst, draw("circle", { class: "picked-ring", r: 9.5 }), draw("text", { class: "picked-name", "aria-hidden": "true" }));
  rove(points);
  place.redraw = (pick) => {
    const edge = Math.min(Math.max(toX(limit()), inner.left), inner.right);
    const active = cost === state.cost;
    for (const mark of svg.querySelectorAll(".beyond, .budget")) mark.style.display = active ? "" : "none";
    const beyond = svg.querySelector(".beyond");
    beyond.setAttribute("x", edge);
    beyond.setAttribute("width", inner.right - edge);
    for (const end of ["x1", "x2"]) svg.querySelector(".budget").setAttribute(end, edge);
    const [ring, name] = [svg.querySelector(".picked-ring"), svg.querySelector(".picked-name")];
    for (const mark of [ring, name]) mark.style.display = of(pick) === undefined ? "none" : "";
    if (of(pick) === undefined) return;
    const [x, y] = [toX(of(pick)), toY(scoreOf(pick).value)];
    ring.setAttribute("cx", x);
    ring.setAttribute("cy", y);
    name.textContent = pick.name;
    const others = sizes.filter((size) => size !== pick).map((size) => [toX(of(size)), toY(scoreOf(size).value)]);
    const spot = roomiest(x, y, 7.5 * pick.name.length, others, inner);
    name.setAttribute("x", x + spot.x);
    name.setAttribute("y", y + spot.y);
    name.setAttribute("text-anchor", spot.anchor);
  };
}

// The offset from (x, y) where a text of this width covers the fewest other points and stays in the chart.
function roomiest(x, y, width, others, inner) {
  const starts = { start: 0, end: -width, middle: -width / 2 };
  const near = [[14, 20, "start"], [14, -10, "start"], [-14, -10, "end"], [-14, 20, "end"], [0, 28, "middle"], [0, -18, "middle"], [18, 5, "start"], [-18, 5, "end"]];
  const farther = [[16, 38, "start"], [16, -28, "start"], [-16, -28, "end"], [-16, 38, "end"], [0, 46, "middle"], [0, -36, "middle"]];
  const spots = [...near, ...farther];
  const cost = ([dx, dy, anchor]) => {
    const [left, top] = [x + dx + starts[anchor], y + dy - 11];
    const outside = left < inner.left || left + width > inner.right + 12 || top < 0 || y + dy > inner.bottom;
    return others.filter(([a, b]) => a > left - 8 && a < left + width + 8 && b > top - 8 && b < top + 23).length + (outside ? 100 : 0);
  };
  const [dx, dy, anchor] = spots.reduce((best, spot) => (cost(spot) < cost(best) ? spot : best));
  return { x: dx, y: dy, anchor };
}

// Width by depth

function drawGrid() {
  const sizes = scored().filter((size) => size.width !== null);
  if (!sizes.length) return byId("grid").replaceChildren(make("p", { class: "note" }, "These sizes have no common width and depth."));
  const descending = (values) => [...new Set(values)].sort((a, b) => b - a);
  const widths = descending(sizes.map((size) => size.width));
  const depths = descending(sizes.map((size) => size.depth));
  const { low, high } = range(sizes.map((size) => scoreOf(size).value));
  const cells = [];
  const rows = depths.map((depth) => {
    const row = make("tr", {}, make("th", { scope: "row" }, `depth ${depth}`));
    for (const width of widths) {
      const size = sizes.find((one) => one.width === width && one.depth === depth);
      row.append(make("td", {}, ...(size ? [cell(size, low, high)] : [])));
      if (size) cells.push(row.lastChild.firstChild);
    }
    return row;
  });
  const head = make("tr", {}, make("td"), ...widths.map((width) => make("th", { scope: "col" }, `width ${width}`)));
  const caption = make("caption", { class: "hidden" }, `${facts.metric} × 100 by width and depth`);
  byId("grid").replaceChildren(make("table", { class: "cells" }, caption, make("thead", {}, head), make("tbody", {}, ...rows)));
  rove(cells, widths.length);
}

function cell(size, low, high) {
  const part = (scoreOf(size).value - low) / (high - low || 1);
  const button = make("button", { type: "button", class: part > 0.78 ? "strong" : part > 0.58 ? "middling" : "" }, number(scoreOf(size).value, 2));
  button.style.setProperty("--amount", `${6 + 94 * part}%`);
  offer(button, size);
  return button;
}

// Heads

function drawHeads() {
  const layers = facts.importance;
  if (!layers.length) {
    byId("heads-note").textContent = "This run has no importance of heads, because it trains no widths.";
    return;
  }
  const most = Math.max(...layers.map((layer) => layer.length));
  const rows = layers.map((heads, layer) => {
    const row = make("tr", { "data-layer": layer }, make("th", { scope: "row" }, `layer ${layer + 1}`));
    const ranked = [...heads].sort((a, b) => b - a);
    const top = Math.max(...heads) || 1;
    for (let head = 0; head < most; head++) row.append(head < heads.length ? headCell(layer, head, heads[head], top, ranked) : make("td", { class: "empty" }));
    return row;
  });
  const caption = make("caption", { class: "hidden" }, "Importance of every attention head, by layer");
  byId("heads").replaceChildren(make("table", { class: "heads" }, caption, make("tbody", {}, ...rows)));
  rove([...byId("heads").querySelectorAll("td:not(.empty)")], most);
}

function headCell(layer, head, score, top, ranked) {
  const rank = ranked.indexOf(score) + 1;
  const element = make("td", { "data-head": head });
  element.style.setProperty("--amount", `${4 + 88 * Math.max(0, score / top)}%`);
  const title = `layer ${layer + 1}, head ${head + 1}`;
  const show = () => showTip(element, title, [`importance ${Number(score.toPrecision(3))}, number ${rank} of ${ranked.length} in its layer`, element.classList.contains("kept") ? "your pick keeps it" : "your pick leaves it out"]);
  for (const event of ["pointerenter", "focus"]) element.addEventListener(event, show);
  for (const event of ["pointerleave", "blur"]) element.addEventListener(event, hideTip);
  element.dataset.title = `${title}: importance ${Number(score.toPrecision(3))}`;
  return element;
}

function markHeads(pick) {
  for (const row of byId("heads").querySelectorAll("tr")) {
    const at = pick.layers.indexOf(Number(row.dataset.layer));
    row.classList.toggle("left-out", at < 0);
    for (const element of row.querySelectorAll("td:not(.empty)")) {
      const kept = at >= 0 && pick.heads[at].includes(Number(element.dataset.head));
      element.classList.toggle("kept", kept);
      element.setAttribute("aria-label", `${element.dataset.title}, ${kept ? "kept" : "left out"}`);
    }
  }
  const kept = pick.heads.reduce((sum, heads) => sum + heads.length, 0);
  const all = facts.importance.reduce((sum, heads) => sum + heads.length, 0);
  if (all) byId("heads-note").textContent = `The stronger the colour, the more important the head is in its layer. Dots mark the heads that your pick keeps: ${kept} of ${all}, in ${pick.layers.length} of ${facts.importance.length} layers.`;
}

// Training

function drawTraining() {
  const drawings = facts.curves.flatMap((curve) => drawingsOf(curve)).filter(({ points }) => points.length > 1);
  byId("training").replaceChildren(...drawings.map(({ place }) => place));
  drawings.forEach(drawCurve);
  if (!drawings.length) byId("training").append(make("p", { class: "note" }, "The run's folder has no training curves."));
}

// A stage's loss and, where it was evaluated more than once, its dev scores.
function drawingsOf(curve) {
  const stage = curve.stage.replaceAll("_", " ");
  const score = `mean ${facts.metric} on dev`;
  const end = curve.dev.length ? `; at the end ${score} ${number(curve.dev.at(-1)[1], 2)}` : "";
  return [
    { stage, what: "loss", points: curve.loss, place: figure(stage, `loss by step${end}`) },
    { stage, what: score, points: curve.dev, place: figure(stage, `${score} by step`) },
  ];
}

function drawCurve({ stage, what, points, place }) {
  const last = shortly(points.at(-1)[1]);
  const { svg, toX, toY } = chart(place, 170, points.map(([step]) => step), points.map(([, value]) => value), (value) => number(value, 0), shortly, `${stage}: ${what}, ${points.length} points, at the end ${last}`);
  const places = points.map(([step, value]) => [toX(step), toY(value)]);
  svg.append(draw("path", { class: "curve", d: path(places) }));
  if (points.length < 20) svg.append(...places.map(([cx, cy]) => draw("circle", { class: "bead", cx, cy, r: 2.75 })));
  const cross = draw("circle", { class: "cross", r: 5, visibility: "hidden" });
  svg.append(cross);
  svg.addEventListener("pointermove", (event) => {
    const x = event.clientX - svg.getBoundingClientRect().left;
    const nearest = places.reduce((best, [px], i) => (Math.abs(px - x) < Math.abs(places[best][0] - x) ? i : best), 0);
    cross.setAttribute("cx", places[nearest][0]);
    cross.setAttribute("cy", places[nearest][1]);
    cross.setAttribute("visibility", "visible");
    showTip(cross, `${stage}, step ${number(points[nearest][0], 0)}`, [`${what} ${shortly(points[nearest][1])}`]);
  });
  svg.addEventListener("pointerleave", () => {
    cross.setAttribute("visibility", "hidden");
    hideTip();
  });
}

// The table

function drawTable() {
  const shown = Object.keys(costs);
  const head = make("tr", {}, ...["size", ...Object.keys(facts.splits).map((split) => `${facts.metric} on ${split}`), ...shown.map((cost) => costs[cost].title)].map((title) => make("th", { scope: "col" }, title)));
  const rows = facts.sizes.map((size) => {
    const scores = Object.keys(facts.splits).map((split) => (size.scores[split] ? showScore(size.scores[split]) : "–"));
    const values = shown.map((cost) => (costs[cost].of(size) === undefined ? "–" : costs[cost].show(costs[cost].of(size))));
    return make("tr", { "data-sub": size.name }, ...[size.name, ...scores, ...values].map((text) => make("td", {}, text)));
  });
  const caption = make("caption", { class: "hidden" }, "Scores and costs of all sizes; ± is one standard error");
  const foot = make("tfoot", {}, ...comparedRows(shown.length));
  byId("table").replaceChildren(make("table", { class: "list" }, caption, make("thead", {}, head), make("tbody", {}, ...rows), foot));
}

// The teacher and the most frequent class below the sizes; they have no costs here.
function comparedRows(without) {
  const splits = Object.keys(facts.splits);
  const row = (name, texts) => make("tr", {}, ...[name, ...texts, ...Array(without).fill("–")].map((text) => make("td", {}, text)));
  return [
    ...(Object.keys(facts.teacher).length ? [row("teacher", splits.map((split) => (facts.teacher[split] ? showScore(facts.teacher[split]) : "–")))] : []),
    ...(Object.keys(facts.majority).length ? [row("always the most frequent class", splits.map((split) => (facts.majority[split] ? number(facts.majority[split][1], 2) : "–")))] : []),
  ];
}

// The budget and the pick

function differenceTo(score, pick, name) {
  const difference = scoreOf(pick).value - score.value;
  return `${difference < 0 ? "−" : "+"}${number(Math.abs(difference), 2)} against ${name}`;
}

function drawPick(pick) {
  const full = facts.sizes[0];
  const { of, show, title } = costs[state.cost];
  byId("limit").textContent = `${show(limit())}${state.cost === "latency" ? "" : ` ${title}`}`.replace("Parameters", "parameters");
  byId("slider").setAttribute("aria-valuetext", byId("limit").textContent);
  byId("pick-why").textContent = state.pinned ? "The size that you selected" : "The best size within the budget";
  byId("pick-name").textContent = titleOf(pick);
  const against = [
    ...(teacher() ? [differenceTo(teacher(), pick, "the teacher")] : []),
    pick === full ? "the largest" : differenceTo(scoreOf(full) || scoreOf(pick), pick, "the largest"),
  ].join(", ");
  const terms = Object.keys(costs).filter((cost) => costs[cost].of(pick) !== undefined).map((cost) => {
    const share = costs[cost].of(full) ? [make("small", {}, `${number((100 * costs[cost].of(pick)) / costs[cost].of(full), 0)} % of the largest`)] : [];
    return defined(costs[cost].title, costs[cost].show(costs[cost].of(pick)), ...share);
  });
  byId("pick-facts").replaceChildren(defined(`${facts.metric} on ${state.split}`, showScore(scoreOf(pick)), make("small", {}, against)), ...terms);
  byId("command").replaceChildren(...commandOf(pick).split(/ (?=--)/).flatMap((part) => [make("span", {}, part), " "]).slice(0, -1));
  byId("said").textContent = `${titleOf(pick)}, ${facts.metric} ${showScore(scoreOf(pick))}`;
}

function update() {
  const pick = picked();
  drawPick(pick);
  for (const place of byId("fronts").children) place.redraw(pick);
  markHeads(pick);
  for (const element of document.querySelectorAll("[data-sub]")) {
    const size = facts.sizes.find((one) => one.name === element.dataset.sub);
    element.classList.toggle("picked", size === pick);
    if (element.getAttribute("role") !== "button") continue;
    element.classList.toggle("dear", isDearer(size) && size !== pick);
    element.setAttribute("aria-pressed", size === pick);
  }
}

function pin(size) {
  state.pinned = size.name;
  update();
}

function limitBy(cost) {
  state.cost = cost;
  const { of, show } = costs[cost];
  const { low, high } = range(priced(cost).map(of));
  byId("ends").replaceChildren(make("span", {}, show(low)), make("span", {}, show(high)));
  for (const button of byId("costs").children) {
    button.setAttribute("aria-checked", button.dataset.cost === cost);
    button.setAttribute("tabindex", button.dataset.cost === cost ? "0" : "-1");
  }
  byId("setting-choice").hidden = cost !== "latency";
  byId("setting-note").hidden = backend() !== "onnxruntime-int8";
}

function drawAll() {
  hideTip();
  drawFronts();
  drawGrid();
  drawHeads();
  drawTraining();
  drawTable();
  limitBy(state.cost);
  update();
}

// Setup, once

function options(select, names, chosen) {
  select.replaceChildren(...names.map((name, i) => make("option", { value: i }, name)));
  select.addEventListener("change", () => {
    chosen(select.selectedIndex);
    drawAll();
  });
}

function begin() {
  byId("task").textContent = facts.task.replaceAll("_", " ");
  const counted = Object.entries(facts.splits).map(([split, count]) => `${number(count, 0)} examples of ${split}`).join(" and ");
  byId("about").textContent = `${facts.sizes.length} sizes cut from one set of weights (${facts.model}). Scores are ${facts.metric} × 100 on ${counted}${facts.sizes[0] && Object.values(facts.sizes[0].scores)[0].error === null ? "" : ", with one standard error"}.`;
  for (const cost of Object.keys(costs)) {
    const button = make("button", { type: "button", role: "radio", "data-cost": cost }, costs[cost].title);
    button.addEventListener("click", () => {
      state.pinned = null;
      limitBy(cost);
      update();
    });
    byId("costs").append(button);
  }
  byId("costs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const buttons = [...byId("costs").children];
    const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
    next.focus();
    next.click();
  });
  byId("slider").addEventListener("input", (event) => {
    state.share = event.target.valueAsNumber / 1000;
    state.pinned = null;
    update();
  });
  byId("split-choice").hidden = Object.keys(facts.splits).length < 2;
  options(byId("split"), Object.keys(facts.splits), (i) => (state.split = Object.keys(facts.splits)[i]));
  options(byId("setting"), facts.latencies.map((latency) => latency.setting), (i) => (state.setting = i));
  byId("warnings").hidden = !facts.warnings.length;
  byId("warnings").querySelector("ul").append(...facts.warnings.map((warning) => make("li", {}, warning)));
  byId("latency-note").hidden = !facts.latency_note;
  byId("latency-note").textContent = facts.latency_note;
  byId("origin").append(...Object.entries(facts.origin).map(([name, value]) => defined(name.replaceAll("_", " "), value)));
  byId("copy").addEventListener("click", copy);
  byId("theme").addEventListener("click", () => setTheme(!isDark()));
  setTheme(null);
  addEventListener("keydown", (event) => event.key === "Escape" && hideTip());
  addEventListener("scroll", placeTip, { passive: true }); // the focus may have scrolled the page
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) drawAll(); // only the width: on a phone, scrolling changes the height
    width = innerWidth;
  });
}

function copy() {
  const range = document.createRange();
  range.selectNodeContents(byId("command"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  const copied = document.execCommand("copy"); // the newer API is not available to pages opened from a file
  byId("copy").textContent = copied ? "Copied" : "Selected";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
}

const isDark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function setTheme(dark) {
  if (dark !== null) document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").textContent = isDark() ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", `Show the page in ${isDark() ? "light" : "dark"} colours`);
}

begin();
drawAll();
