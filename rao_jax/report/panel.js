// What one agent did: its figures, its turns, the agents it launched.

const KEYWORDS = "await|async|asyncio|gather|for|while|in|if|elif|else|def|return|import|and|or|not|None|True|False";
const STRINGS = /#[^\n]*|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'/.source; // and remarks
const WORDS = new RegExp(`(${STRINGS}|\\blaunch_subagent\\b|\\b(?:${KEYWORDS})\\b)`);
const CHIPS = 60; // launched agents shown by name

function showCell(parent, cell) {
  const pre = element(parent, "pre", "cell");
  cell.split(WORDS).forEach((piece, i) => {
    if (i % 2 === 0) { pre.append(piece); return; }
    const kinds = { "#": "remark", '"': "string", "'": "string" };
    element(pre, "span", piece === "launch_subagent" ? "launch" : kinds[piece[0]] || "word", piece);
  });
}

// `choose(i)` is called when the user goes to another agent.
function showNode(panel, tree, i, choose) {
  panel.replaceChildren();
  const depth = tree.path(i).length;
  const where = element(panel, "p", "panel-where", i === 0 ? "root agent" : `agent ${tree.name(i)}, depth ${depth}`);
  if (i > 0) {
    where.append(", launched by ");
    chip(where, tree, tree.parent(i), choose);
  }
  element(panel, "p", "panel-title", visible(tree.goal(i)));
  const badge = element(panel, "span", "badge", reached(tree.success(i)));
  badge.style.background = colourOf(tree.success(i));
  if (tree.outcome(i)) element(panel, "span", "panel-where", `ended: ${visible(tree.outcome(i))}`);
  const turns = tree.turns(i);
  const facts = element(panel, "div", "facts");
  for (const [label, value] of [
    ["reward", number(tree.figure("reward", i))], ["baseline", number(tree.figure("baseline", i))],
    ["advantage", signed(tree.figure("advantage", i))], ["weight", number(tree.figure("weight", i))],
    ["tokens", number(tree.figure("tokens", i))], ["sampled", number(tree.figure("sampled", i))],
    ["turns", number(turns.length)], ["children", number(tree.children[i].length)],
  ]) {
    if (value === UNKNOWN) continue;
    const fact = element(facts, "div");
    element(fact, "span", "", label);
    element(fact, "b", "", value);
  }
  const placed = new Set(); // children whose turn is known
  turns.forEach((turn, t) => {
    const box = element(panel, "div", "turn");
    element(box, "h4", "", `turn ${t + 1}`);
    showCell(box, visible(turn.cell));
    const launched = tree.children[i].filter((child) => tree.columns.turn[child] === t);
    launched.forEach((child) => placed.add(child));
    const refused = turn.launches - launched.length;
    if (launched.length || refused > 0) chips(box, tree, launched, choose, refused > 0 ? `${refused} refused` : "");
    if (turn.output) element(box, "pre", "output", visible(turn.output));
  });
  const rest = tree.children[i].filter((child) => !placed.has(child));
  if (rest.length) chips(panel, tree, rest, choose, "");
  panel.scrollTop = 0;
}

function chip(parent, tree, i, choose) {
  const made = element(parent, "button", "chip", `${glyphOf(tree.success(i))} ${tree.name(i)}`);
  made.style.setProperty("--colour", colourOf(tree.success(i)));
  made.title = visible(tree.goal(i).slice(0, 400));
  made.addEventListener("click", () => choose(i));
}

function chips(parent, tree, nodes, choose, more) {
  const line = element(parent, "p", "launches", "launched ");
  nodes.slice(0, CHIPS).forEach((i) => chip(line, tree, i, choose));
  if (nodes.length > CHIPS) more = `and ${number(nodes.length - CHIPS)} more ${more}`;
  if (!nodes.length) line.textContent = "launches: ";
  line.append(more);
}
