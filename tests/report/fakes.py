"""Workdirs as a run leaves them, made up: what the tests of the report read."""

import json
import math
import random

HOSTILE = (
  "</script><script>document.title='forged'</script><img src=http://evil.example/x onerror=alert(1)> & <!-- ${x} `"
  " \u2028 \u202e \x00 \x1b[2J \ud800 \N{GREEK SMALL LETTER ALPHA}"
)
MADE = ["iron_gear", "oak_frame", "copper_wire", "brass_lamp", "glass_lens", "steel_hinge", "amber_seal"]


def fake_tree(rng, step, number, depth, difficulty, solved=True):
  """A tree whose root delegates `depth` levels deep, in path order."""
  nodes = []

  def add(path, parent, left):
    index, goal = len(nodes), f"craft {rng.randint(1, 6)} {rng.choice(MADE)}"
    success = 1.0 if solved or (path and rng.random() < 0.6) else 0.0
    nodes.append(
      {
        "path": path,
        "parent": parent,
        "depth": len(path),
        "goal": goal,
        "outcome": "finished" if success else "truncated",
        "success": success,
        "reward": success,
        "baseline": 0.625,
        "advantage": success - 0.625,
        "weight": 0.8,
        "tokens": 210,
        "sampled": 74,
        "wave": [1, 0] if path else None,
        "turns": [],
      }
    )
    children = [] if left == 0 else [left - 1] + [rng.randrange(left) for _ in range(rng.choice([0, 1, 1, 2]))]
    for i, below in enumerate(children):
      add([*path, i], index, below)
    turns = [{"cell": f"get_info(['{MADE[0]}', '{MADE[1]}'])", "output": f"{MADE[0]}: 2 {MADE[2]}, 1 tin_rod -> 1"}]
    if children:
      launches = ", ".join(f"launch_subagent({{'{rng.choice(MADE)}': {i + 1}}})" for i in range(len(children)))
      turns.append(
        {
          "cell": f"# the parts first\nr = await asyncio.gather({launches})\nr",
          "output": "['done', 'done']",
          "launches": len(children) + 1,  # one was refused
        }
      )
    turns.append({"cell": f"craft('{MADE[0]}', 2)\nfinish('done')", "output": "crafted 2"})
    nodes[index]["turns"] = turns

  add([], -1, depth)
  return {
    "step": step,
    "tree": number,
    "group": number // 8,
    "task": f"textcraft_synth.{difficulty}.test.{number}",
    "difficulty": difficulty,
    "valid": True,
    "goal": nodes[0]["goal"],
    "nodes": nodes,
  }


def fake_run(folder, rng, rate, depths, steps=120, seed=0):
  """A workdir whose success rises at `rate`; trees of the given depths at the last step."""
  (folder / "trees").mkdir(parents=True)
  config = {"seed": seed, "rollout": {"max_depth": 6 if len(depths) > 1 else 0, "window": 512}, "learn": {"lr": 3e-4}}
  (folder / "config.json").write_text(json.dumps(config))
  rows = [{"step": s, "warmstart/loss": 3 * math.exp(-s / 4) + 0.4} for s in range(0, 20)]
  for step in range(steps):
    up = 1 - math.exp(-rate * step)
    noise = lambda scale=0.04: rng.gauss(0, scale)
    clip = lambda x: min(1.0, max(0.0, x))
    row = {
      "step": step,
      "train/success": clip(0.3 + 0.6 * up + noise()),
      "train/success/easy": clip(0.7 + 0.29 * up + noise()),
      "train/success/medium": clip(0.2 + 0.7 * up + noise()),
      "train/nodes_per_tree": 1 + 5 * up * (len(depths) > 1),
      "train/max_depth": 3 * (len(depths) > 1),
      "train/entropy": 0.5 - 0.3 * up + noise(0.01),
      "train/loss": noise(),
      "train/ratio_mean": 1 + noise(0.001),
      "train/ratio_max": 1.5 + abs(noise(0.5)),
      "train/approx_kl": abs(noise(0.002)),
      "train/clip_share": abs(noise(0.01)),
      "train/grad_norm": 0.4 + abs(noise(0.1)),
      "train/lr": 3e-4 * min(1, step / 10),
      "funnel/trees_started": 64,
      "funnel/trees_finished": 63,
      "funnel/trees_dropped_deadline": 1,
      "funnel/trajectories": 300,
      "funnel/trajectories_nonzero": 180,
      "funnel/tokens_sampled": 21000,
      "funnel/tokens_trained": 15000,
      "time/step_seconds": 2.1 + noise(),
      "time/rollout_seconds": 1.2 + noise(),
      "tokens/sampled_total": 21000 * (step + 1),
      "train/outcome/finished": 0.5 + 0.4 * up,
      "train/outcome/truncated": 0.3 - 0.25 * up,
      "train/outcome/context_full": 0.2 - 0.15 * up,
    }
    for depth in range(4 if len(depths) > 1 else 1):
      row[f"train/reward/depth_{depth}"] = clip(0.4 + 0.1 * depth + 0.4 * up + noise())
      row[f"train/advantage/depth_{depth}"] = noise()
    rows.append(row)
    if step % 20 == 0 or step == steps - 1:
      rows.append({"step": step, **{f"eval/success/{d}": clip(a + (b - a) * up) for d, a, b in FAKE_EVAL}})
  (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  dump = [fake_tree(rng, steps, i, d, "hard" if d > 2 else "medium", i % 5 != 4) for i, d in enumerate(depths)]
  (folder / "trees" / "test.jsonl").write_text("".join(json.dumps(tree) + "\n" for tree in dump))


FAKE_EVAL = [("easy", 0.7, 0.99), ("medium", 0.22, 0.94), ("hard", 0.0, 0.84)]
SUMMARY = {
  "recursive": {
    "warm_start": {"easy": 0.71, "medium": 0.22, "hard": 0.015},
    "trained": {"easy": 0.99, "medium": 0.94, "hard": 0.845},
    "sampled_tokens": 2_520_000,
    "max_depth_solved": 5,
  },
  "single": {
    "warm_start": {"easy": 0.76, "medium": 0.31, "hard": 0.0},
    "trained": {"easy": 0.98, "medium": 0.81, "hard": 0.035},
    "sampled_tokens": 2_610_000,
    "max_depth_solved": 0,
  },
  "single_4x": {
    "warm_start": {"easy": 0.75, "medium": 0.3, "hard": 0.02},
    "trained": {"easy": 0.98, "medium": 0.86, "hard": 0.31},
    "sampled_tokens": 2_600_000,
    "max_depth_solved": 0,
  },
  "script_by_window": {
    "easy": {"256": 0.98, "512": 1.0, "1024": 1.0, "2048": 1.0},
    "medium": {"256": 0.31, "512": 0.82, "1024": 0.99, "2048": 1.0},
    "hard": {"256": 0.0, "512": 0.04, "1024": 0.37, "2048": 0.9},
  },
  "tasks_per_difficulty": {"easy": 100, "medium": 100, "hard": 200},
  "intervals": {"recursive": {"trained": {"hard": [0.788, 0.889]}}},
  "window": 512,
  "seed": 0,
  "seconds": 803.2,
}


def fake_demo(folder):
  rng = random.Random(0)
  fake_run(folder / "recursive", rng, 0.04, [1, 2, 2, 3, 3, 4, 4, 5, 5, 3, 3, 2])
  fake_run(folder / "single", rng, 0.03, [0])
  (folder / "summary.json").write_text(json.dumps(SUMMARY))
  return [folder / "recursive", folder / "single"]
