"""What a run shows while it goes: a live line, or plain lines for a log; seconds by part; the final table."""

import sys
import time
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm

LIVE = "step {n_fmt}/{total_fmt} |{bar:10}| {desc}"  # with two difficulties it fits into 80 columns


class Clock:
  """Seconds of the parts of a step."""

  def __init__(self):
    self.laps: dict[str, float] = {}
    self._last = self._start = time.monotonic()

  def lap(self, name: str) -> None:
    now = time.monotonic()
    self.laps[name], self._last = now - self._last, now

  def metrics(self) -> dict[str, float]:
    return {
      **{f"time/{name}_seconds": s for name, s in self.laps.items()},
      "time/step_seconds": time.monotonic() - self._start,
    }


class Screen:
  """What the terminal shows: one line that is kept up to date, or a plain line a step for a log, or nothing.

  Attributes:
    quiet: plain lines; also where there is no terminal, so that a log holds no control characters.
    silent: nothing at all, as on every process but the first.
  """

  def __init__(self, quiet: bool, silent: bool = False):
    self.quiet, self.silent = quiet or not sys.stderr.isatty(), silent
    self._bar: tqdm | None = None
    self._began = time.monotonic()
    self._first: int | None = None

  def bar(self, total: int, what: str, unit: str = "it", initial: int = 0) -> tqdm:
    """A progress bar; that of the steps becomes the live line with the first call of `step`."""
    self._bar = tqdm(
      total=total, desc=what, unit=unit, unit_scale=unit == "tok", initial=initial, disable=self.quiet or self.silent,
      dynamic_ncols=True,
    )  # fmt: skip
    return self._bar

  def line(self, text: str) -> None:
    """A line that stays, above the live one."""
    if self.silent:
      return
    if self.quiet:
      print(text, flush=True)
    else:
      tqdm.write(text)

  def step(self, step: int, steps: int, metrics: Mapping[str, float]) -> None:
    """Progress, success, tokens per second and the time that is left: ETA."""
    left = None
    if self._first is None:
      self._first, self._began = step, time.monotonic()
    else:
      left = (time.monotonic() - self._began) / (step - self._first) * (steps - step)
    eta = "?" if left is None else tqdm.format_interval(left)
    success = by_difficulty(metrics, "train")
    speed = f"{metrics['time/sampled_tokens_per_second']:,.0f} tok/s  {metrics['time/step_seconds']:.1f} s"
    if self.quiet:
      self.line(
        f"step {step}/{steps}  {success}  nodes {metrics.get('train/nodes_per_tree', 0):.1f}  "
        f"entropy {metrics.get('train/entropy', 0):.3f}  grad {metrics.get('train/grad_norm', 0):.2f}  "
        f"{speed}  ETA {eta}"
      )
    elif self._bar is not None:
      self._bar.bar_format = LIVE
      self._bar.set_description_str(f"{success}  {speed}  ETA {eta}")

  def evaluation(self, step: int, metrics: Mapping[str, float]) -> None:
    seconds = metrics["time/evaluation_seconds"]
    self.line(f"evaluation at step {step}: {by_difficulty(metrics, 'eval')}  ({seconds:.1f} s)")


def by_difficulty(metrics: Mapping[str, float], prefix: str) -> str:
  """Success of each difficulty; of all tasks if they have none."""
  start = f"{prefix}/success/"
  parts = [f"{key.removeprefix(start)} {value:.2f}" for key, value in sorted(metrics.items()) if key.startswith(start)]
  return "  ".join(parts) or f"success {metrics.get(f'{prefix}/success', 0):.2f}"


def final_table(summary: Mapping[str, Any]) -> str:
  """What a run came to: its length and tokens, the last evaluation."""
  lines = [
    f"{summary['steps']} steps in {tqdm.format_interval(summary['seconds'])}, {summary['sampled']:,} sampled tokens, "
    f"{summary['warm_start_tokens']:,} warm-start tokens"
  ]
  found, start = summary["evaluation"], "eval/success/"
  difficulties = sorted(key.removeprefix(start) for key in found if key.startswith(start))
  if difficulties:
    width = max(12, *map(len, difficulties))
    lines.append(f"{'difficulty':{width}} {'success':>9} {'nodes per tree':>16}")
    for difficulty in difficulties:
      nodes = found[f"eval/nodes_per_tree/{difficulty}"]
      lines.append(f"{difficulty:{width}} {found[start + difficulty]:9.3f} {nodes:16.1f}")
  return "\n".join(lines)
