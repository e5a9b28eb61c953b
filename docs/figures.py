"""Draws the figures of these pages from recorded results. Needs matplotlib, which nothing else does.

python docs/figures.py                               docs/soak.svg from docs/soak.jsonl
"""

import json
import pathlib

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt

DOCS = pathlib.Path(__file__).parent
PANELS = {
  "rss_mb": "resident memory, MiB",
  "below_mb": "memory of the sandbox's processes, MiB",
  "open_files": "open files",
  "processes": "processes of the sandbox",
  "compiled": "programs compiled",
}
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


if __name__ == "__main__":
  soak()
