"""The tables that an evaluation prints: success, shape and cost by split and tier, comparisons, alarms. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

WIDE = 20  # of the first two columns


def tables(result: Mapping[str, Any]) -> str:
  """What an evaluation found, for people; `result` as of `evaluate_workdir`."""
  agents = [result, *result["single"]]
  parts = [figures(agents), *(comparison(result["name"], agent) for agent in agents[1:])]
  if len(agents) > 1 or result["k"] > 1:
    parts.append(costs(result["pareto"]))
  parts.append("\n".join(f"alarm {alarm['name']}: {alarm['text']}" for alarm in result["alarms"]))
  return "\n\n".join(part for part in parts if part)


def figures(agents: Sequence[Mapping[str, Any]]) -> str:
  """Success, shape and cost: a row for each split or tier and agent."""
  lines = [
    f"{'split':{WIDE}} {'agent':{WIDE}} {'tasks':>5} {'success':>8} {'95% interval':>14} {'nodes':>7} {'depth':>6} "
    f"{'deepest':>8} {'branching':>10} {'parallel':>9} {'tokens':>8} {'critical':>9}"
  ]
  for kind, label in (("splits", ""), ("tiers", "tier ")):
    for name in agents[0][kind]:
      for agent in agents:
        if r := agent[kind].get(name):
          low, high = r["interval"]
          lines.append(
            f"{label + name:{WIDE}} {agent['name'][:WIDE]:{WIDE}} {r['tasks']:5d} {r['success']:8.3f} "
            f"{low:6.3f}..{high:5.3f} {r['nodes_per_tree']:8.1f} {r['depth_reached']:6.1f} {r['deepest_solved']:8d} "
            f"{r['branching']:10.1f} {r['parallel_share']:9.0%} {r['sampled_tokens_per_tree']:8.0f} "
            f"{r['critical_path_per_tree']:9.0f}"
          )
  lines.append(
    "means over trees. depth: of the deepest node; deepest: the same of the deepest tree solved; parallel: share of "
    "launches\nmade beside another; tokens: sampled; critical: of them, those on the longest chain"
  )
  return "\n".join(lines)


def comparison(name: str, agent: Mapping[str, Any]) -> str:
  """What the agent called `name` has over another, on the same tasks."""
  lines = [f"{name} against {agent['name']}, on the same tasks"]
  for split, r in agent["against"].items():
    low, high = r["interval"]
    lines.append(
      f"{split:{WIDE}} success {r['success']:+.3f} ({low:+.3f}..{high:+.3f})   tokens x{r['tokens_ratio']:.2f}   "
      f"critical path x{r['critical_path_ratio']:.2f}"
    )
  return "\n".join(lines)


def costs(points: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
  """Success against tokens and against the critical path; split -> points as of `pareto`."""
  lines = [
    "success against cost; * where another row of the split does as well for less, or better for no more",
    f"{'split':{WIDE}} {'agent':{WIDE}} {'best of':>8} {'success':>8} {'tokens':>9} {'critical':>10}",
  ]
  for split, some in points.items():
    for p in some:
      tokens, path = ("*" if cost in p["dominated"] else " " for cost in ("tokens", "critical_path"))
      lines.append(
        f"{split:{WIDE}} {p['agent'][:WIDE]:{WIDE}} {p['k']:8d} {p['success']:8.3f} {p['tokens']:8.0f}{tokens} "
        f"{p['critical_path']:9.0f}{path}"
      )
  return "\n".join(lines)
