// The drawing of one tree. Only what is in sight is drawn, so that 10,000 agents scroll like ten; beside a tall one
// stands an overview of all of it.

const BEYOND = 500; // pixels drawn around what is in sight

class Drawing {
  // `name`: no other drawing of the page has it. `chosen(i)` is called when the user chooses node i.
  constructor(holder, name, chosen) {
    Object.assign(this, { name, chosen });
    this.overview = element(holder, "div", "overview");
    this.canvas = element(this.overview, "canvas");
    this.sight = element(this.overview, "div", "sight");
    this.scroller = element(holder, "div", "drawing");
    this.scroller.tabIndex = 0;
    this.scroller.setAttribute("role", "tree");
    this.scroller.setAttribute("aria-label", "tree of agents");
    this.space = element(this.scroller, "div", "space");
    this.svg = shape(this.space, "svg", {});
    this.scroller.addEventListener("scroll", () => this.later());
    this.scroller.addEventListener("keydown", (event) => this.key(event));
    this.svg.addEventListener("click", (event) => {
      const mark = event.target.closest(".node");
      if (mark) this.chosen(Number(mark.dataset.node));
    });
    const jump = (event) => {
      if (event.type === "pointermove" && !(event.buttons & 1)) return;
      const box = this.overview.getBoundingClientRect();
      this.scroller.scrollTop = ((event.clientY - box.top) / box.height) * this.height - this.scroller.clientHeight / 2;
    };
    for (const type of ["pointerdown", "pointermove"]) this.overview.addEventListener(type, jump);
  }

  show(tree) {
    Object.assign(this, { tree, node: 0, narrow: phone.matches || tree.leaves > TALL, skip: commonStart(tree) });
    this.at = place(tree, this.narrow);
    this.resize();
    this.scroller.scrollTop = this.y(0) - this.scroller.clientHeight / 2;
    this.scroller.scrollLeft = 0;
    this.draw();
  }

  // Sizes that follow from the width of the page.
  resize() {
    const { deepest, rows } = this.at;
    this.line = this.narrow ? 40 : 44;
    this.height = rows * this.line + 8;
    this.overview.hidden = true;
    this.scroller.style.height = "";
    this.space.style.width = "0";
    this.space.style.height = `${this.height}px`;
    this.overview.hidden = this.height < 1.6 * this.scroller.clientHeight;
    const room = this.scroller.clientWidth;
    this.column = this.narrow ? 22 : Math.max(118, Math.min(230, room / (deepest + 1)));
    this.width = Math.max(room, this.column * (deepest + (this.narrow ? 0 : 1)) + (this.narrow ? 190 : 0));
    this.space.style.width = `${this.width}px`;
    if (!this.overview.hidden) this.drawOverview();
  }

  x(i) { return 16 + this.at.depth[i] * this.column; }
  y(i) { return this.line / 2 + 4 + this.at.row[i] * this.line; }

  choose(i, scroll) {
    this.node = i;
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.scroller;
    const [x, y] = [this.x(i), this.y(i)];
    const [above, below] = [y < scrollTop + 20, y > scrollTop + clientHeight - 20];
    const [before, behind] = [x < scrollLeft, x > scrollLeft + clientWidth - 60];
    if (scroll && (above || below)) this.scroller.scrollTop = y - clientHeight / 2;
    if (scroll && (before || behind)) this.scroller.scrollLeft = x - clientWidth / 2;
    this.draw();
  }

  key(event) {
    const { tree, node } = this;
    const beside = node === 0 ? [0] : tree.children[tree.parent(node)];
    const to = {
      ArrowLeft: tree.parent(node), ArrowRight: tree.children[node][0], ArrowUp: node - 1, ArrowDown: node + 1,
      Home: 0, End: tree.size - 1, PageUp: beside[beside.indexOf(node) - 1], PageDown: beside[beside.indexOf(node) + 1],
    };
    if (!(event.key in to)) return;
    event.preventDefault();
    if (to[event.key] >= 0 && to[event.key] < tree.size) this.chosen(to[event.key]);
  }

  later() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.scroller;
      const [left, top, right, bottom] = this.drawn;
      const high = scrollTop >= top && scrollTop + clientHeight <= bottom;
      const wide = scrollLeft >= left && scrollLeft + clientWidth <= right;
      if (high && wide) this.moveSight();
      else this.draw();
    });
  }

  draw() {
    const { tree, svg, line, narrow } = this;
    const { scrollTop, scrollLeft, clientHeight, clientWidth } = this.scroller;
    const [left, top] = [Math.max(0, scrollLeft - BEYOND), Math.max(0, scrollTop - BEYOND)];
    const right = Math.min(this.width, scrollLeft + clientWidth + BEYOND);
    const bottom = Math.min(this.height, scrollTop + clientHeight + BEYOND);
    this.drawn = [
      left <= 0 ? -Infinity : left, top <= 0 ? -Infinity : top,
      right >= this.width ? Infinity : right, bottom >= this.height ? Infinity : bottom,
    ];
    svg.replaceChildren();
    svg.setAttribute("width", right - left);
    svg.setAttribute("height", bottom - top);
    svg.setAttribute("viewBox", `${left} ${top} ${right - left} ${bottom - top}`);
    svg.style.transform = `translate(${left}px,${top}px)`;
    const between = (x, low, high) => x > low && x < high;
    const seen = (i) =>
      between(this.y(i), top - line, bottom + line) && between(this.x(i), left - this.column, right + 20);
    const nodes = [];
    for (let i = 0; i < tree.size; i++) {
      const below = tree.children[i];
      if (below.length && this.x(i) < right && this.x(below[0]) > left) {
        const from = Math.min(this.y(i), this.y(below[0])), to = Math.max(this.y(i), this.y(below.at(-1)));
        if (from < bottom && to > top) shape(svg, "path", { d: this.trunk(i), class: "link" });
      }
      if (!seen(i)) continue;
      if (i) shape(svg, "path", { d: this.branch(i), class: "link" });
      nodes.push(i);
    }
    for (const i of tree.line(this.node).slice(1)) {
      const [x, y] = [this.x(tree.parent(i)), this.y(tree.parent(i))];
      const d = `M${x},${y} H${narrow ? x : this.bend(i)} V${this.y(i)} H${this.x(i)}`;
      shape(svg, "path", { d, class: "link lit" });
    }
    for (const i of nodes) this.mark(i);
    this.scroller.setAttribute("aria-activedescendant", this.id(this.node));
    this.moveSight();
  }

  id(i) { return `${this.name}-agent-${i}`; }

  bend(i) { return this.narrow ? this.x(this.tree.parent(i)) : this.x(i) - 20; }

  // From a parent to the bend, and along all its children.
  trunk(i) {
    const below = this.tree.children[i];
    const [first, last, bend] = [this.y(below[0]), this.y(below.at(-1)), this.bend(below[0])];
    if (this.narrow) return `M${bend},${this.y(i)} V${last}`;
    return `M${this.x(i)},${this.y(i)} H${bend}` + (last > first ? ` M${bend},${first + 7} V${last - 7}` : "");
  }

  // From the bend to a child, round a corner if the parent is not on its row.
  branch(i) {
    const [bend, y, x] = [this.bend(i), this.y(i), this.x(i)];
    const corner = this.narrow ? 0 : Math.sign(Math.round(y - this.y(this.tree.parent(i)))) * 7;
    const beside = this.tree.children[this.tree.parent(i)];
    if (!corner || (i !== beside[0] && i !== beside.at(-1))) return `M${bend},${y} H${x}`;
    return `M${bend},${y - corner} Q${bend},${y} ${bend + 7},${y} H${x}`;
  }

  mark(i) {
    const { tree, narrow, line } = this;
    const success = tree.success(i);
    const mark = shape(this.svg, "g", {
      class: i === this.node ? "node chosen" : "node",
      role: "treeitem", id: this.id(i), "aria-selected": i === this.node,
      "data-node": i, "data-path": tree.name(i), transform: `translate(${this.x(i)},${this.y(i)})`,
    });
    const space = narrow ? this.width - this.x(i) - 22 : this.column - 34;
    const letters = Math.floor((space - (narrow ? 16 : 2)) / (narrow ? 7.1 : 6.8));
    const own = visible(tree.goal(i).slice(this.skip, this.skip + 400)).replace(/\s+/g, " ");
    const lines = narrow ? [short(own, letters)] : wrap(own, letters, 2);
    const labelWidth = narrow ? space : Math.min(space, 4 + 7 * Math.max(...lines.map((l) => l.length)));
    const hit = { x: -14, y: -line / 2 + 3, width: labelWidth + (narrow ? 16 : 24), height: line - 6, rx: 9 };
    shape(mark, "rect", { class: "hit", ...hit });
    shape(mark, "circle", { r: 9.5, fill: colourOf(success) });
    shape(mark, "text", { class: "glyph", y: 4 }, glyphOf(success));
    const first = narrow ? -2 : lines.length > 1 ? -2.5 : 4;
    lines.forEach((text, k) => shape(mark, "text", { class: "title", x: 15, y: first + 13.5 * k }, text));
    if (narrow) {
      const [advantage, tokens] = [tree.figure("advantage", i), tree.figure("sampled", i) ?? tree.figure("tokens", i)];
      const facts = [count(tree.columns.turns[i].length, "turn"), `${number(tokens)} tokens`];
      if (typeof advantage === "number") facts.push(`adv. ${signed(advantage)}`);
      shape(mark, "text", { class: "small", x: 15, y: 13 }, short(facts.join(" \u00b7 "), Math.floor(letters * 1.17)));
    }
    shape(mark, "title", {}, `${tree.name(i)}: ${visible(tree.goal(i).slice(0, 400))} (${visible(tree.outcome(i))})`);
  }

  // Depth from left to right, the rows of the whole tree from top to bottom.
  drawOverview() {
    const { tree, at } = this;
    const [wide, high] = [this.overview.clientWidth, this.overview.clientHeight];
    const scale = window.devicePixelRatio || 1;
    Object.assign(this.canvas, { width: wide * scale, height: high * scale });
    const pen = this.canvas.getContext("2d");
    pen.scale((wide / (at.deepest + 1)) * scale, (high / at.rows) * scale);
    for (let i = 0; i < tree.size; i++) {
      pen.fillStyle = colourOf(tree.success(i));
      pen.fillRect(at.depth[i], at.top[i], 0.94, at.bottom[i] - at.top[i]);
    }
  }

  moveSight() {
    if (this.overview.hidden) return;
    const { scrollTop, clientHeight } = this.scroller;
    this.sight.style.top = `${(scrollTop / this.height) * 100}%`;
    this.sight.style.height = `max(4px, ${(clientHeight / this.height) * 100}%)`;
  }
}
