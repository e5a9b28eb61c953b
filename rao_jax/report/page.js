// Starts the viewer, and draws the figures as they come into sight; learning curves against what is chosen.

const DATA = JSON.parse(document.getElementById("data").textContent);

const axisChoice = document.getElementById("axis-choice");

// What the steps of a curve had cost so far, between two known ones in proportion.
function spentAt(steps, [known, spent]) {
  let i = 1;
  return steps.map((step) => {
    while (i < known.length - 1 && known[i] < step) i += 1;
    const share = Math.min(1, (step - known[i - 1]) / (known[i] - known[i - 1]));
    return spent[i - 1] + share * (spent[i] - spent[i - 1]);
  });
}

// A figure as it is drawn: learning curves, which name their experiment, against the axis that is chosen.
function chosen(figure) {
  const axis = axisChoice?.value ?? "step";
  const data = figure.data.map((trace) => {
    if (!trace.meta || axis === "step") return trace;
    const known = DATA.spent[trace.meta][axis];
    return { ...trace, x: known ? spentAt(trace.x, known) : [] };
  });
  const layout = { ...figure.layout, autosize: true };
  if (data.some((trace) => trace.meta)) layout.xaxis = { ...layout.xaxis, title: { text: axis } };
  if (phone.matches) layout.dragmode = false; // a finger scrolls the page, it does not zoom the figure
  return [data, layout, { displaylogo: false, displayModeBar: false }];
}

function drawFigures() {
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => Plotly.Plots.resize(entry.target)));
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      Plotly.newPlot(target, ...chosen(DATA.figures[target.id])).then((drawn) => sizes.observe(drawn));
    }
  }, { rootMargin: "800px" });
  axisChoice?.addEventListener("change", () => {
    for (const drawn of document.querySelectorAll(".figure.js-plotly-plot")) {
      if (DATA.figures[drawn.id].data.some((trace) => trace.meta)) Plotly.react(drawn, ...chosen(DATA.figures[drawn.id]));
    }
  });
  for (const [id, figure] of Object.entries(DATA.figures)) {
    const holder = document.getElementById(id);
    holder.style.height = `${figure.layout.height}px`;
    sight.observe(holder);
  }
}

async function startViewer() {
  try {
    new Viewer(await unpack(DATA.index), DATA.chunks, DATA.first);
  } catch (error) {
    const text = `This browser could not unpack the trees (${error.message}): a newer one can.`;
    element(document.getElementById("tree-sides"), "p", "", text);
    throw error;
  }
}

if (DATA.chunks.length) startViewer();
drawFigures();
