// A tree of the page, and where its nodes are drawn.

class Tree {
  // Columns as pack.py writes them; nodes in path order, so a parent is before its children.
  constructor(entry, columns, texts) {
    Object.assign(this, { entry, columns, texts, size: columns.parent.length });
    this.children = columns.parent.map(() => []);
    columns.parent.forEach((p, i) => { if (p >= 0) this.children[p].push(i); });
  }
  get leaves() { return this.children.filter((below) => !below.length).length; }
  parent(i) { return this.columns.parent[i]; }
  goal(i) { return this.texts[this.columns.goal[i]]; }
  outcome(i) { return this.texts[this.columns.outcome[i]]; }
  success(i) { return this.columns.success[i]; }
  figure(name, i) { return (this.columns[name] || [])[i]; }
  turns(i) {
    const text = (place) => this.texts[place];
    const turn = ([cell, output, launches]) => ({ cell: text(cell), output: text(output), launches });
    return this.columns.turns[i].map(turn);
  }
  line(i) { // from the root to the node
    const line = [];
    for (let j = i; j >= 0; j = this.parent(j)) line.unshift(j);
    return line;
  }
  path(i) { return this.line(i).slice(1).map((j) => this.columns.launch[j]); }
  name(i) { return i === 0 ? "root" : this.path(i).join("."); }
  at(path) { // the node there, or undefined
    const child = (i, launch) => this.children[i].find((j) => this.columns.launch[j] === launch);
    return path.reduce((i, launch) => (i === undefined ? i : child(i, launch)), 0);
  }
}

const TALL = 100; // leaves from which on a tree is drawn narrow: parents would be far from all their children

// Rows and depths. Wide: the root at the left, one row per leaf. Narrow: one row per node, indented by depth.
// `top` to `bottom` are the rows of a node's whole subtree.
function place(tree, narrow) {
  const n = tree.size;
  const [depth, row, top, bottom] = [new Int32Array(n), new Float64Array(n), new Int32Array(n), new Int32Array(n)];
  let rows = 0;
  for (let i = 0; i < n; i++) {
    depth[i] = i === 0 ? 0 : depth[tree.parent(i)] + 1;
    top[i] = rows;
    if (narrow || !tree.children[i].length) row[i] = rows++;
  }
  for (let i = n - 1; i >= 0; i--) {
    const below = tree.children[i];
    bottom[i] = below.length ? bottom[below[below.length - 1]] : top[i] + 1;
    if (!narrow && below.length) row[i] = (row[below[0]] + row[below[below.length - 1]]) / 2;
  }
  return { depth, row, top, bottom, rows, deepest: depth.reduce((a, b) => Math.max(a, b), 0) };
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
function commonStart(tree) {
  const first = tree.goal(0);
  let n = first.length;
  for (let i = 1; i < tree.size && n; i++) {
    const goal = tree.goal(i);
    let same = 0;
    while (same < n && goal[same] === first[same]) same++;
    n = same;
  }
  return tree.size > 1 ? first.slice(0, n).lastIndexOf(" ") + 1 : 0;
}
