"""What a run shows while it goes: progress bars and a line a step, seconds by part, the final table."""

import time
from typing import Any

from tqdm import tqdm


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
  """What the terminal shows: progress bars and one line a step, or plain lines for a log, or nothing."""

  def __init__(self, quiet: bool, silent: bool = False):
    self.quiet, self.silent = quiet, silent
    self._began = time.monotonic()
    self._first: int | None = None

  def bar(self, total: int, what: str, unit: str = "it", initial: int = 0) -> tqdm:
    return tqdm(
      total=total, desc=what, unit=unit, unit_scale=unit == "tok", initial=initial, disable=self.quiet or self.silent
    )

  def line(self, text: str) -> None:
    if self.silent:
      return
    if self.quiet:
      print(text, flush=True)
    else:
      tqdm.write(text)

  def step(self, step: int, steps: int, m: dict[str, float]) -> None:
    if self._first is None:
      self._first, self._began = step, time.monotonic()
      eta = "?"
    else:
      eta = f"{(time.monotonic() - self._began) / (step - self._first) * (steps - step):.0f} s"
    parts = [f"{k.rsplit('/', 1)[1]} {v:.2f}" for k, v in sorted(m.items()) if k.startswith("train/success/")]
    self.line(
      f"step {step}/{steps}  {'  '.join(parts)}  nodes {m.get('train/nodes_per_tree', 0):.1f}  "
      f"entropy {m.get('train/entropy', 0):.3f}  grad {m.get('train/grad_norm', 0):.2f}  "
      f"{m['time/sampled_tokens_per_second']:.0f} tok/s  {m['time/step_seconds']:.1f} s  ETA {eta}"
    )

  def evaluation(self, step: int, m: dict[str, float]) -> None:
    parts = [f"{k.rsplit('/', 1)[1]} {v:.2f}" for k, v in sorted(m.items()) if k.startswith("eval/success/")]
    self.line(f"evaluation at step {step}: {'  '.join(parts)}  ({m['time/evaluation_seconds']:.1f} s)")


def final_table(summary: dict[str, Any]) -> str:
  """What a run came to."""
  rows = [
    f"{summary['steps']} steps, {summary['warm_start_tokens']:,} warm-start tokens, {summary['sampled']:,} sampled "
    f"tokens, {summary['seconds']:.0f} s of training"
  ]
  found = summary["evaluation"]
  for key in sorted(k for k in found if k.startswith("eval/success/")):
    difficulty = key.rsplit("/", 1)[1]
    rows.append(
      f"  {difficulty:10} success {found[key]:.3f}   nodes per tree {found[f'eval/nodes_per_tree/{difficulty}']:.1f}"
    )
  return "\n".join(rows)
