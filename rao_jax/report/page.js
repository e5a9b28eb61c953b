// Starts the viewer, and draws the figures as they come into sight.

const DATA = JSON.parse(document.getElementById("data").textContent);

function drawFigures() {
  const sizes = new ResizeObserver((entries) => entries.forEach((entry) => Plotly.Plots.resize(entry.target)));
  const sight = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      sight.unobserve(target);
      const figure = DATA.figures[target.id];
      const layout = { ...figure.layout, autosize: true };
      if (phone.matches) layout.dragmode = false; // a finger scrolls the page, it does not zoom the figure
      Plotly.newPlot(target, figure.data, layout, { displaylogo: false, displayModeBar: false })
        .then((drawn) => sizes.observe(drawn));
    }
  }, { rootMargin: "800px" });
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
