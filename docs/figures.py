"""Draws the figures of these pages from recorded results. Needs matplotlib, which nothing else does.

python docs/figures.py        docs/soak.svg from docs/soak.jsonl, docs/tree.svg from docs/tree.json

docs/tree.json is one line of a file of trees that an evaluation or a training run wrote.
"""

import json
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

plt.rcParams["svg.hashsalt"] = "rao_jax"  # the same figure is the same file

DOCS = pathlib.Path(__file__).parent
PANELS = {
  "rss_mb": "resident memory, MiB",
  "below_mb": "memory of the sandbox's processes, MiB",
  "open_files": "open files",
  "processes": "processes of the sandbox",
  "compiled": "programs compiled",
}
SUCCEEDED = {1: "#0072B2", 0: "#D55E00"}
FAULTS = {
  "hostile_cells": "hostile cells", "sandbox_killed": "sandbox killed", "world_raised": "world raised",
  "nan_updates": "NaN updates",
}  # fmt: skip


def soak() -> None:
  samples = [json.loads(line) for line in (DOCS / "soak.jsonl").read_text().splitlines()]
  minutes = [sample["seconds"] / 60 for sample in samples]
  figure, axes = plt.subplots(3, 2, figsize=(10, 7), sharex=True, layout="constrained")
  for ax, (name, title) in zip(axes.flat, PANELS.items()):
    values = [sample[name] for sample in samples]
    ax.plot(minutes, values, color="#0072B2", linewidth=1.2)
    ax.set_title(title, fontsize=10, loc="left")
    ax.set_ylim(0, max(values) * 1.25)
  last = axes.flat[-1]
  for (name, label), colour in zip(FAULTS.items(), ("#D55E00", "#0072B2", "#009E73", "#CC79A7")):
    last.plot(minutes, [max(sample[name], 0.5) for sample in samples], color=colour, linewidth=1.2, label=label)
  last.set_yscale("log")
  last.set_title("faults so far", fontsize=10, loc="left")
  last.legend(fontsize=8, frameon=False)
  for ax in axes[-1]:
    ax.set_xlabel("minutes")
  for ax in axes.flat:
    ax.grid(color="#e6e9ee")
    ax.spines[["top", "right"]].set_visible(False)
  figure.savefig(DOCS / "soak.svg", metadata={"Date": None})


def rows_of(nodes: list[dict]) -> list[float]:
  """Where each node stands: leaves below one another, parents in the middle of their children."""
  children = {i: [j for j, node in enumerate(nodes) if node["parent"] == i] for i in range(len(nodes))}
  rows, free = [0.0] * len(nodes), iter(range(len(nodes)))

  def place(i: int) -> float:
    rows[i] = sum(map(place, children[i])) / len(children[i]) if children[i] else float(next(free))
    return rows[i]

  place(0)
  return rows


def tree() -> None:
  nodes = json.loads((DOCS / "tree.json").read_text())["nodes"]
  rows = rows_of(nodes)
  figure, ax = plt.subplots(figsize=(10, 0.5 + 0.22 * (max(rows) + 1)), layout="constrained")
  for node, row in zip(nodes, rows):
    colour, depth = SUCCEEDED[int(node["success"] > 0)], node["depth"]
    if node["parent"] >= 0:
      x, above = (
        [depth - 1, depth - 0.5, depth - 0.35, depth],
        rows[node["parent"]],
      )  # straight under the label
      ax.plot(x, [above, above, row, row], color="#b8c0cc", linewidth=1, zorder=1)
    ax.scatter(depth, row, s=14 + node["sampled"] / 3, color=colour, zorder=2)
    ax.annotate(
      node["goal"].rpartition(": ")[2], (depth, row), (7, 4), textcoords="offset points", fontsize=7, color="#333333"
    )
  ax.set_xlim(-0.1, max(node["depth"] for node in nodes) + 0.9)
  ax.invert_yaxis()
  ax.axis("off")
  figure.savefig(DOCS / "tree.svg", metadata={"Date": None})


if __name__ == "__main__":
  soak()
  tree()
