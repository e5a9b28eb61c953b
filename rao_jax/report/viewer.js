// The choice of a tree, and one tree or two side by side.

async function unpack(text) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// Chunks of packed trees, unpacked when they are asked for; the last few are kept.
class Chunks {
  constructor(packed) { Object.assign(this, { packed, kept: new Map() }); }
  async tree(entry) {
    let chunk = this.kept.get(entry.chunk);
    this.kept.delete(entry.chunk);
    chunk ??= unpack(this.packed[entry.chunk]);
    this.kept.set(entry.chunk, chunk); // now the newest
    if (this.kept.size > 4) this.kept.delete(this.kept.keys().next().value);
    const { texts, trees } = await chunk;
    return new Tree(entry, trees[entry.at], texts);
  }
}

// One tree: a line of what it came to, the drawing, the panel of the chosen agent.
class Side {
  constructor(parent, name, followed) {
    this.box = element(parent, "div", "side");
    this.title = element(this.box, "p", "side-title");
    const parts = element(this.box, "div", "side-parts");
    this.drawing = new Drawing(element(parts, "div", "card tree"), name, (i) => this.choose(i, true));
    this.panel = element(parts, "aside", "card panel");
    this.panel.setAttribute("aria-live", "polite");
    this.followed = followed;
  }
  show(tree) {
    this.tree = tree;
    const { entry } = tree;
    this.title.replaceChildren();
    const badge = element(this.title, "span", "badge", reached(entry.success));
    badge.style.background = colourOf(entry.success);
    const cost = `${count(tree.size, "agent")}, depth ${entry.depth}, ${count(entry.sampled, "token")} sampled `;
    this.title.append(`${entry.run}, ${sourceName(entry)}: ${cost}`);
    element(this.title, "code", "", entry.id).title = "its name for python -m rao_jax.report --tree";
    this.drawing.show(tree);
    this.choose(0, false);
  }
  choose(i, byUser) {
    this.drawing.choose(i, true);
    showNode(this.panel, this.tree, i, (j) => this.choose(j, true));
    if (byUser) this.followed(this);
  }
}

function sourceName({ source, step }) {
  return /^step_\d+$/.test(source) ? `step ${step}` : `${source.replaceAll("_", " ")}, step ${step}`;
}
const address = (entry) => `#tree=${encodeURIComponent(visible(`${entry.run}/${entry.id}`))}`;
const rollouts = (entry) => JSON.stringify([entry.run, entry.source, entry.group, entry.task]);
const same = (a, b, ...names) => names.every((name) => a[name] === b[name]);

class Viewer {
  // `first`: [run, id] of the tree to show, or null.
  constructor(index, chunks, first) {
    this.index = index;
    this.chunks = new Chunks(chunks);
    const names = ["run", "step", "task", "rollout", "other"];
    this.select = Object.fromEntries(names.map((name) => [name, document.getElementById(`${name}-choice`)]));
    const holder = document.getElementById("tree-sides");
    this.sides = ["left", "right"].map((name) => new Side(holder, name, (side) => this.follow(side)));
    const on = (name, act) => this.select[name].addEventListener("change", (event) => act(event.target.value));
    on("run", (run) => this.go((e) => e.run === run));
    on("step", (source) => this.go((e) => same(e, this.entry, "run") && e.source === source));
    on("task", (group) => this.show(this.index.find((e) => rollouts(e) === group)));
    on("rollout", (k) => this.show(this.index[k]));
    on("other", (k) => this.show(this.entry, this.index[k]));
    phone.addEventListener("change", () => this.show(this.entry, this.other));
    let wide = window.innerWidth;
    window.addEventListener("resize", () => {
      if (wide === window.innerWidth) return; // a phone's bars come and go
      wide = window.innerWidth;
      this.shown.forEach((side) => { side.drawing.resize(); side.drawing.draw(); });
    });
    this.show(this.start(first));
  }

  // Named in the address, asked for when the page was made, or the deepest that was solved.
  start(first) {
    const asked = (e) => first && e.run === first[0] && e.id === first[1];
    const named = this.index.find((e) => address(e) === location.hash) || this.index.find(asked);
    const rank = (e) => [e.success, e.depth, e.nodes];
    const better = (a, b) => rank(a).map((x, k) => x - rank(b)[k]).find((d) => d !== 0) > 0;
    return named || this.index.reduce((best, e) => (better(e, best) ? e : best));
  }

  // To one of the entries that are chosen from, of the same task if there is one.
  go(chosen) {
    const entries = this.index.filter(chosen);
    const like = (...names) => entries.find((e) => same(e, this.entry, ...names));
    this.show(like("task", "source") || like("task") || entries[0]);
  }

  async show(entry, other) {
    Object.assign(this, { entry, other });
    this.fill();
    const asked = [entry, other].filter((e) => e);
    const trees = await Promise.all(asked.map((e) => this.chunks.tree(e)));
    if (this.entry !== entry || this.other !== other) return; // something else was chosen meanwhile
    this.shown = this.sides.slice(0, trees.length);
    this.sides[1].box.hidden = !other;
    document.getElementById("tree-sides").classList.toggle("two", !!other);
    const goal = document.getElementById("tree-goal");
    goal.replaceChildren();
    element(goal, "b", "", "Task: ");
    goal.append(visible(trees[0].goal(0)));
    showDifference(document.getElementById("tree-difference"), trees);
    trees.forEach((tree, k) => this.sides[k].show(tree));
    try {
      history.replaceState(null, "", address(entry));
    } catch { /* a page without an address */ }
  }

  // The agent at the same place of the other tree.
  follow(side) {
    const twin = this.shown.find((s) => s !== side);
    const there = twin && twin.tree.at(side.tree.path(side.drawing.node));
    if (there !== undefined) twin.choose(there, false);
  }

  fill() {
    const { entry, index } = this;
    const options = (name, entries, value, text, chosen) => {
      const select = this.select[name];
      select.replaceChildren();
      const seen = new Set();
      for (const e of entries) {
        if (seen.has(value(e))) continue;
        seen.add(value(e));
        element(select, "option", "", text(e)).value = value(e);
      }
      select.value = chosen;
      document.getElementById(`${name}-label`).hidden = seen.size < 2;
    };
    const at = new Map(index.map((e, k) => [e, k]));
    const groups = new Map();
    index.forEach((e) => groups.set(rollouts(e), [...(groups.get(rollouts(e)) || []), e]));
    const what = ({ success, depth, nodes, sampled }) =>
      `${glyphOf(success)} depth ${depth}, ${count(nodes, "agent")}, ${count(sampled, "token")}`;
    options("run", index, (e) => e.run, (e) => e.run, entry.run);
    options("step", index.filter((e) => same(e, entry, "run")), (e) => e.source, sourceName, entry.source);
    const tasks = index.filter((e) => same(e, entry, "run", "source"));
    options("task", tasks, rollouts, (e) => {
      const all = groups.get(rollouts(e));
      const solved = all.length > 1 ? `${all.filter((o) => o.success >= 1).length} of ${all.length} solved` : what(e);
      return `${e.difficulty}: ${solved} \u2014 ${visible(e.task)}`;
    }, rollouts(entry));
    const group = groups.get(rollouts(entry));
    options("rollout", group, (e) => at.get(e), (e) => `${group.indexOf(e) + 1}: ${what(e)}`, at.get(entry));
    const others = index.filter((e) => e !== entry && e.task === entry.task && !group.includes(e));
    const name = (e) => (group.includes(e) ? `rollout ${group.indexOf(e) + 1}` : `${e.run}, ${sourceName(e)}`);
    const nothing = {};
    const text = (e) => (e === nothing ? "nothing" : `${name(e)}: ${what(e)}`);
    const all = [nothing, ...group.filter((e) => e !== entry), ...others];
    options("other", all, (e) => at.get(e) ?? "", text, at.get(this.other) ?? "");
  }
}

// What two rollouts came to, and where their roots part.
function showDifference(holder, trees) {
  holder.replaceChildren();
  if (trees.length < 2) return;
  const total = (tree, of) => tree.columns.parent.reduce((sum, _, i) => sum + of(tree, i), 0);
  const lines = [
    ["success", (t) => number(t.success(0))],
    ["reward", (t) => number(t.figure("reward", 0))],
    ["baseline", (t) => number(t.figure("baseline", 0))],
    ["advantage", (t) => signed(t.figure("advantage", 0))],
    ["agents", (t) => number(t.size)],
    ["of them with success", (t) => number(total(t, (tree, i) => (tree.success(i) >= 1 ? 1 : 0)))],
    ["depth", (t) => number(t.entry.depth)],
    ["turns", (t) => number(total(t, (tree, i) => tree.columns.turns[i].length))],
    ["tokens sampled", (t) => number(t.entry.sampled)],
    ["along the longest chain", (t) => number(t.entry.critical ?? undefined)],
  ];
  const row = (tree) => [`${tree.entry.run}, ${tree.entry.id}`, ...lines.map(([, value]) => value(tree))];
  let cells = [["", ...lines.map(([label]) => label)], ...trees.map(row)];
  if (phone.matches) cells = cells[0].map((_, k) => cells.map((row) => row[k])); // two columns in place of two rows
  const table = element(element(holder, "div", "scroll"), "table");
  cells.forEach((row, r) => {
    const line = element(element(table, r ? "tbody" : "thead"), "tr");
    row.forEach((text, c) => element(line, r && c ? "td" : "th", "", text));
  });
  const [a, b] = trees.map((tree) => tree.turns(0));
  let alike = 0;
  while (alike < Math.min(a.length, b.length) && a[alike].cell === b[alike].cell) alike++;
  let text = "The two roots wrote different cells from the first turn on.";
  if (alike) text = `The two roots wrote the same cells up to turn ${alike}.`;
  if (alike === a.length && alike === b.length) text = "The two roots wrote the same cells.";
  element(holder, "p", "note", `${text} An agent chosen in one tree is shown in the other too, if it is there.`);
}
