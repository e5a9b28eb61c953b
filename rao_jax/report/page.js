"use strict";
// Draws the figures, and the trees with the panel of the chosen node. All texts of the run go in through textContent.

const DATA = JSON.parse(document.getElementById("data").textContent);
const phone = window.matchMedia("(max-width: 700px)");

function drawFigures() {
  const observer = new ResizeObserver((entries) => entries.forEach((entry) => Plotly.Plots.resize(entry.target)));
  for (const [id, figure] of Object.entries(DATA.figures)) {
    const layout = { ...figure.layout, autosize: true };
    if (phone.matches) layout.dragmode = false; // a finger scrolls the page, it does not zoom the figure
    Plotly.newPlot(id, figure.data, layout, { displaylogo: false, displayModeBar: false })
      .then((drawn) => observer.observe(drawn));
  }
}

function element(parent, tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

function shape(parent, tag, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  if (text !== undefined) made.textContent = text;
  return parent.appendChild(made);
}

const short = (text, room) => (text.length > room ? text.slice(0, room - 1) + "\u2026" : text);
const number = (x) => (typeof x === "number" ? String(Math.round(x * 1000) / 1000) : "\u2013");
const signed = (x) => (typeof x === "number" && x > 0 ? "+" : "") + number(x);
const nameOf = (node) => ((node.path || []).length ? node.path.join(".") : "root");

function colourOf(node) {
  if (node.success >= 1) return "#009e73";
  return node.success > 0 ? "#56b4e9" : "#d55e00";
}
const glyphOf = (node) => (node.success >= 1 ? "\u2713" : node.success > 0 ? "\u00bd" : "\u2717");

// Wide pages: the root at the left, one row per leaf. Narrow ones: one row per node, indented by depth.
function place(nodes, narrow) {
  const children = nodes.map(() => []);
  nodes.forEach((node, i) => { if (node.parent >= 0 && node.parent < nodes.length && node.parent !== i) children[node.parent].push(i); });
  const at = new Array(nodes.length).fill(null);
  let row = 0;
  const walk = (i, depth) => {
    if (at[i]) return;
    at[i] = { depth, row: narrow ? row++ : 0 };
    children[i].forEach((child) => walk(child, depth + 1));
    if (narrow) return;
    const below = children[i].map((child) => at[child].row);
    at[i].row = below.length ? (below[0] + below[below.length - 1]) / 2 : row++;
  };
  nodes.forEach((node, i) => { if (!(node.parent >= 0)) walk(i, 0); });
  nodes.forEach((_, i) => walk(i, nodes[i].depth || 0));
  return { at, rows: row };
}

// The text in at most `lines` lines of `room` letters, broken at spaces, and at underscores where a word is too long.
function wrap(text, room, lines) {
  const made = [""];
  const pieces = text.split(/(?<= )/).flatMap((word) => (word.trimEnd().length > room ? word.split(/(?<=_)/) : [word]));
  for (const piece of pieces) {
    if (made[made.length - 1] && (made[made.length - 1] + piece).trimEnd().length > room) made.push("");
    made[made.length - 1] += piece;
  }
  if (made.length > lines) made.splice(lines - 1, made.length, made.slice(lines - 1).join(""));
  return made.map((line) => short(line.trimEnd(), room));
}

// How many letters all goals of a tree begin with, up to a space: what is left tells its agents apart.
function commonStart(goals) {
  let n = goals[0].length;
  for (const goal of goals) while (!goal.startsWith(goals[0].slice(0, n))) n--;
  return goals.length > 1 ? goals[0].slice(0, n).lastIndexOf(" ") + 1 : 0;
}

function drawTree(tree) {
  const holder = document.getElementById("tree-drawing");
  holder.replaceChildren();
  const narrow = phone.matches;
  const { at, rows } = place(tree.nodes, narrow);
  const deepest = Math.max(...at.map((a) => a.depth));
  const room = holder.clientWidth - 18;
  const column = narrow ? 22 : Math.max(118, Math.min(230, room / (deepest + 1)));
  const line = narrow ? 40 : 44;
  const width = narrow ? Math.max(room, column * deepest + 190) : Math.max(room, column * (deepest + 1));
  const svg = shape(holder, "svg", { width, height: rows * line + 8, role: "tree", "aria-label": "tree of agents" });
  const x = (i) => 16 + at[i].depth * column;
  const y = (i) => line / 2 + 4 + at[i].row * line;

  const links = tree.nodes.map((node, i) => {
    if (!(node.parent >= 0)) return null;
    const p = node.parent;
    const down = Math.sign(y(i) - y(p)) * 7;
    const bend = x(i) - 20;
    // Wide: behind the parent's label, then a rounded corner, then into the child's circle.
    const path = narrow ? `M${x(p)},${y(p)} V${y(i)} H${x(i)}` : down === 0 ? `M${x(p)},${y(p)} H${x(i)}`
      : `M${x(p)},${y(p)} H${bend - 7} Q${bend},${y(p)} ${bend},${y(p) + down} V${y(i) - down} Q${bend},${y(i)} ${bend + 7},${y(i)} H${x(i)}`;
    return shape(svg, "path", { d: path, class: "link" });
  });

  const choose = (i) => {
    links.forEach((link) => link && link.classList.remove("lit"));
    for (let j = i, left = tree.nodes.length; j >= 0 && left > 0; j = tree.nodes[j].parent, left--) {
      if (links[j]) { links[j].classList.add("lit"); svg.insertBefore(links[j], marks[0]); }
    }
    marks.forEach((mark, j) => mark.classList.toggle("chosen", j === i));
    showNode(tree.nodes[i], tree);
  };

  const skip = commonStart(tree.nodes.map((node) => String(node.goal ?? "")));
  const marks = tree.nodes.map((node, i) => {
    const mark = shape(svg, "g", { class: "node", tabindex: 0, role: "treeitem", "data-path": nameOf(node), transform: `translate(${x(i)},${y(i)})` });
    const space = narrow ? width - x(i) - 22 : column - 34;
    const letters = Math.floor((space - (narrow ? 16 : 2)) / (narrow ? 7.1 : 6.3));
    const goal = String(node.goal ?? "");
    const own = goal.slice(skip);
    const lines = narrow ? [short(own, letters)] : wrap(own, letters, 2);
    const labelWidth = narrow ? space : Math.min(space, 4 + 6.6 * Math.max(...lines.map((l) => l.length)));
    shape(mark, "rect", { class: "hit", x: -14, y: -line / 2 + 3, width: labelWidth + (narrow ? 16 : 28), height: line - 6, rx: 9 });
    shape(mark, "circle", { r: 9.5, fill: colourOf(node) });
    shape(mark, "text", { class: "glyph", y: 4 }, glyphOf(node));
    const first = narrow ? -2 : lines.length > 1 ? -2.5 : 4;
    lines.forEach((text, k) => shape(mark, "text", { class: "title", x: 15, y: first + 13.5 * k }, text));
    if (narrow) {
      const facts = [`${(node.turns || []).length} turns`, `${node.sampled ?? node.tokens ?? "?"} tokens`];
      if (typeof node.advantage === "number") facts.push(`adv. ${signed(node.advantage)}`);
      shape(mark, "text", { class: "small", x: 15, y: 13 }, short(facts.join(" \u00b7 "), Math.floor(letters * 1.17)));
    }
    shape(mark, "title", {}, `${nameOf(node)}: ${goal} (${node.outcome ?? ""})`);
    mark.addEventListener("click", () => choose(i));
    mark.addEventListener("keydown", (event) => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); choose(i); }
    });
    return mark;
  });
  choose(0);
}

const WORDS = /(#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\blaunch_subagent\b|\b(?:await|async|asyncio|gather|for|while|in|if|elif|else|def|return|import|and|or|not|None|True|False)\b)/;

function showCell(parent, cell) {
  const pre = element(parent, "pre", "cell");
  cell.split(WORDS).forEach((piece, i) => {
    if (i % 2 === 0) { pre.append(piece); return; }
    const kind = piece[0] === "#" ? "remark" : piece === "launch_subagent" ? "launch" : /["']/.test(piece[0]) ? "string" : "word";
    element(pre, "span", kind, piece);
  });
}

function showNode(node, tree) {
  const panel = document.getElementById("node-panel");
  panel.replaceChildren();
  element(panel, "p", "panel-where", nameOf(node) === "root" ? "root agent" : `agent ${nameOf(node)}, depth ${node.depth ?? node.path.length}`);
  element(panel, "p", "panel-title", String(node.goal ?? ""));
  const badge = element(panel, "span", "badge", node.success >= 1 ? "goal reached" : node.success > 0 ? `success ${number(node.success)}` : "not reached");
  badge.style.background = colourOf(node);
  if (node.outcome !== undefined) element(panel, "span", "panel-where", `ended: ${node.outcome}`);
  const facts = element(panel, "div", "facts");
  const children = tree.nodes.filter((other) => other.parent >= 0 && tree.nodes[other.parent] === node).length;
  for (const [label, value] of [
    ["reward", number(node.reward)], ["baseline", number(node.baseline)], ["advantage", signed(node.advantage)],
    ["weight", number(node.weight)], ["tokens", number(node.tokens)], ["sampled", number(node.sampled)],
    ["turns", number((node.turns || []).length)], ["children", number(children)],
  ]) {
    const fact = element(facts, "div");
    element(fact, "span", "", label);
    element(fact, "b", "", value);
  }
  (node.turns || []).forEach((turn, i) => {
    const box = element(panel, "div", "turn");
    element(box, "h4", "", `turn ${i + 1}`);
    showCell(box, turn.cell || "");
    if (turn.output) element(box, "pre", "output", turn.output);
  });
  panel.scrollTop = 0;
}

function startTrees() {
  const choice = document.getElementById("tree-choice");
  if (!choice) return;
  DATA.trees.forEach((tree, i) => {
    const state = tree.solved ? "solved" : "failed";
    const option = element(choice, "option", "", `${tree.difficulty ?? ""}, ${state}, depth ${tree.max_depth}, ${tree.nodes.length} agents \u2014 ${tree.run}, ${tree.task ?? ""}`);
    option.value = i;
  });
  let best = 0;
  DATA.trees.forEach((tree, i) => {
    const now = DATA.trees[best];
    if (tree.solved > now.solved || (tree.solved === now.solved && tree.max_depth > now.max_depth)) best = i;
  });
  const show = () => {
    const tree = DATA.trees[choice.value];
    const goal = document.getElementById("tree-goal");
    goal.replaceChildren();
    element(goal, "b", "", "Task: ");
    goal.append(String(tree.goal ?? ""));
    drawTree(tree);
  };
  choice.value = best;
  choice.addEventListener("change", show);
  phone.addEventListener("change", show);
  show();
}

startTrees();
drawFigures();
