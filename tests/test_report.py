"""report/: one self-contained page from runs that may be incomplete, whatever texts the agents wrote."""

import html.parser
import json
import math
import os
import random
import re
import shutil
import subprocess

import pytest

from rao_jax.report import __main__ as cli
from rao_jax.report import data, page, trees, write_report

HOSTILE = "</script><script>document.title='forged'</script><img src=http://evil.example/x onerror=alert(1)> & \u2028"
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
        {"cell": f"# the parts first\nr = await asyncio.gather({launches})\nr", "output": "['done', 'done']"}
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


def fake_run(folder, rng, rate, depths, steps=120):
  """A workdir whose success rises at `rate`; trees of the given depths at the last step."""
  (folder / "trees").mkdir(parents=True)
  config = {"seed": 0, "rollout": {"max_depth": 6 if len(depths) > 1 else 0, "window": 512}, "learn": {"lr": 3e-4}}
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
      "outcome/finished": 0.5 + 0.4 * up,
      "outcome/truncated": 0.3 - 0.25 * up,
      "outcome/context_full": 0.2 - 0.15 * up,
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


class Resources(html.parser.HTMLParser):
  """Collects what a browser would fetch, the texts outside scripts and styles, and the number of scripts."""

  def __init__(self, text):
    super().__init__()
    self.fetched, self.texts, self.scripts, self.images, self._inside = [], [], 0, 0, ""
    self.feed(text)

  def handle_starttag(self, tag, attrs):
    self._inside = tag
    self.scripts += tag == "script"
    self.images += tag == "img"
    self.fetched += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]

  def handle_endtag(self, tag):
    self._inside = ""

  def handle_data(self, text):
    if self._inside not in ("script", "style"):
      self.texts.append(text)


def page_data(text):
  return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_everything_and_its_numbers(tmp_path):
  write_report(fake_demo(tmp_path), tmp_path / "report.html", SUMMARY)
  text = (tmp_path / "report.html").read_text()
  found = Resources(text)
  assert found.fetched == [] and found.scripts == 3
  assert "default-src 'none'" in text and "@import" not in text.split("<script")[0]
  shown = " ".join("".join(found.texts).split())
  for expected in [
    "84.5% of hard tasks; without delegation it is 3.5%",
    "84.5% (78.8\N{EN DASH}88.9%)",  # as the summary gives it
    "94% (87.5\N{EN DASH}97.2%)",  # Wilson, 94 of 100
    "2.52M", "100 / 100 / 200", "13.4 min", "in training no tree went below 3", "512 tokens", "rollout.max_depth",
  ]:  # fmt: skip
    assert expected in shown, expected
  assert len(page_data(text)["figures"]) > 20


def test_wilson_interval_by_hand():
  # p = 0.5, n = 4, z^2 = 3.8415: centre 0.5, half = 1.96 / 1.96037 * sqrt(0.0625 + 0.060023) = 0.34996
  low, high = data.wilson(0.5, 4)
  assert low == pytest.approx(0.15004, abs=1e-4) and high == pytest.approx(0.84996, abs=1e-4)
  assert data.wilson(0.0, 10)[0] == 0.0 and data.wilson(1.0, 10)[1] == 1.0


@pytest.mark.parametrize("missing", ["config.json", "metrics.jsonl", "trees", "everything", "summary", "parts"])
def test_a_page_is_made_from_what_there_is(tmp_path, missing):
  runs = fake_demo(tmp_path)
  summary = SUMMARY
  if missing == "trees":
    shutil.rmtree(runs[0] / "trees")
  elif missing == "everything":
    for run in runs:
      shutil.rmtree(run)
      run.mkdir()
  elif missing == "summary":
    summary = None
  elif missing == "parts":
    summary = {"recursive": {"trained": {"medium": 0.5}}, "single": {}, "seed": 1}
  else:
    (runs[0] / missing).unlink()
  write_report(runs, tmp_path / "report.html", summary)
  assert "How to read this page" in (tmp_path / "report.html").read_text()


def test_no_summary_and_no_files_at_all(tmp_path):
  write_report([tmp_path], tmp_path / "out" / "report.html")
  assert "No evaluation yet" in (tmp_path / "out" / "report.html").read_text()


def test_sparse_rows_and_nodes_are_shown_as_far_as_they_go(tmp_path):
  (tmp_path / "trees").mkdir()
  (tmp_path / "metrics.jsonl").write_text(
    '{"step": 0, "train/loss": null}\n{"step": 1, "eval/success/odd one": 0.5}\n{"st'
  )
  whole = json.dumps({"nodes": [{"path": []}, {"path": [0], "parent": 0, "success": 1.0}]})
  (tmp_path / "trees" / "a.jsonl").write_text(f'{whole}\n[1]\n{{"nodes": []}}\n{whole[:-5]}')
  write_report([tmp_path], tmp_path / "report.html")
  text = (tmp_path / "report.html").read_text()
  assert "1 dump line(s) could not be read" in text
  assert len(page_data(text)["trees"]) == 1
  assert "50% of odd one tasks" in text


def test_hostile_texts_stay_texts(tmp_path):
  runs = fake_demo(tmp_path)
  tree = fake_tree(random.Random(1), 120, 99, 2, HOSTILE)
  tree |= {"goal": HOSTILE, "task": HOSTILE}
  tree["nodes"][0] |= {"goal": HOSTILE, "outcome": HOSTILE, "turns": [{"cell": HOSTILE, "output": HOSTILE}]}
  (runs[0] / "trees" / "test.jsonl").write_text(json.dumps(tree) + "\n")
  (runs[0] / "config.json").write_text(json.dumps({HOSTILE: HOSTILE}))
  with (runs[0] / "metrics.jsonl").open("a") as f:
    f.write(json.dumps({"step": 5, f"eval/success/{HOSTILE}": 0.5, f"funnel/{HOSTILE}": 1}) + "\n")
  summary = SUMMARY | {HOSTILE: SUMMARY["single"], "script_by_window": {HOSTILE: {HOSTILE: 0.5}}}
  write_report({HOSTILE: runs[0]}, tmp_path / "report.html", summary)
  text = (tmp_path / "report.html").read_text()
  found = Resources(text)
  assert found.scripts == 3 and found.images == 0 and found.fetched == []
  assert page_data(text)["trees"][0]["nodes"][0]["turns"][0] == {"cell": HOSTILE, "output": HOSTILE}
  for figure in page_data(text)["figures"].values():  # plotly reads a few tags in names
    assert "<" not in json.dumps([trace.get("name") for trace in figure["data"]])


def test_the_deepest_solved_trees_are_shown_one_per_task(tmp_path):
  rng = random.Random(0)
  dump = [fake_tree(rng, 1, i % 10, 1 + i % 4, "hard", solved=i % 3 != 0) for i in range(40)]
  (tmp_path / "a.jsonl").write_text("".join(json.dumps(tree) + "\n" for tree in dump))
  dumps = trees.read_dumps([tmp_path / "a.jsonl"], "run")
  solved = [tree for tree in dumps.shown if tree["solved"]]
  assert [tree["max_depth"] for tree in solved] == [4, 4, 4, 4, 4, 3]
  assert len({tree["task"] for tree in solved}) == 6
  assert sum(not tree["solved"] for tree in dumps.shown) == trees.FAILED_SHOWN
  count = dumps.counts["a", "hard"]
  assert (count.trees, count.solved) == (40, 26)
  assert count.nodes == sum(len(tree["nodes"]) for tree in dump) == sum(n for n, _ in dumps.by_depth.values())


def test_a_long_output_is_cut_with_a_mark():
  tree = fake_tree(random.Random(0), 1, 0, 0, "easy")
  tree["nodes"][0]["turns"] = [{"cell": "x", "output": "y" * (trees.MAX_TEXT + 7)}]
  assert trees._for_page(tree)["nodes"][0]["turns"][0]["output"].endswith("y\n... 7 more characters")


def test_command_line_finds_the_summary_beside_the_runs(tmp_path, capsys):
  runs = fake_demo(tmp_path)
  cli.main([f"--workdir={runs[0]}", f"--workdir={runs[1]}"])
  assert capsys.readouterr().out.strip() == str(runs[0] / "report.html")
  assert "84.5% of hard tasks" in (runs[0] / "report.html").read_text()
  with pytest.raises(SystemExit):
    cli.main([f"--workdir={tmp_path / 'nowhere'}"])
  assert "is not a directory" in capsys.readouterr().err


PROBE = """
<script>
const told = [];
window.onerror = (message) => told.push(String(message));
document.addEventListener("securitypolicyviolation", (event) => told.push("wants " + event.blockedURI));
setTimeout(() => {
  const nodes = [...document.querySelectorAll("#tree-drawing .node")];
  nodes.find((node) => node.dataset.path === "0.0").dispatchEvent(new MouseEvent("click", { bubbles: true }));
  const figures = [...document.querySelectorAll(".figure")];
  const drawn = figures.map((f) => f.querySelector(".main-svg")).filter((svg) => svg);
  parent.postMessage(JSON.stringify({
    told, title: document.title, width: window.innerWidth, nodes: nodes.length,
    panel: document.getElementById("node-panel").textContent,
    undrawn: figures.length - drawn.length,
    wide: drawn.some((svg) => svg.getBoundingClientRect().right > window.innerWidth)
      || document.documentElement.scrollWidth > window.innerWidth,
  }), "*");
}, 3000);
</script></body>
"""
FRAME = """<body><iframe src="page.html" style="width: WIDTHpx; height: 900px; border: 0"></iframe>
<script>onmessage = (event) => document.body.setAttribute("data-answer", event.data)</script></body>
"""  # a frame, since a headless browser makes no window as narrow as a phone


@pytest.mark.full
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_figures_are_drawn_and_a_click_opens_a_node(tmp_path, width):
  browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
  if browser is None:
    assert not os.environ.get("RAO_FULL"), "the full tests need chromium: apt-get install chromium"
    pytest.skip("no chromium")
  runs = fake_demo(tmp_path)
  with (runs[0] / "trees" / "test.jsonl").open("a") as f:
    tree = fake_tree(random.Random(1), 120, 99, 7, "hard")  # the deepest, so the one that is shown
    tree["nodes"][2] |= {"goal": HOSTILE}
    tree["nodes"][2]["turns"][0] |= {"cell": HOSTILE}
    f.write(json.dumps(tree) + "\n")
  text = page.render(data.read_runs(runs), SUMMARY)
  (tmp_path / "page.html").write_text(text.replace("</body>", PROBE))
  (tmp_path / "frame.html").write_text(FRAME.replace("WIDTH", str(width)))
  quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
  profile, url = f"--user-data-dir={tmp_path / 'profile'}", (tmp_path / "frame.html").as_uri()
  command = [browser, "--headless", "--no-sandbox", *quiet, profile, "--window-size=1400,1000", "--dump-dom"]
  command += ["--virtual-time-budget=15000", url]
  dom = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
  answer = json.loads(html.unescape(re.search(r'data-answer="(.*?)"', dom)[1]))
  assert answer["told"] == [] and answer["title"] == "rao_jax report"
  assert answer["width"] == width and answer["undrawn"] == 0
  assert not answer["wide"], "the page or a figure reaches past the right edge"
  assert answer["nodes"] == len(tree["nodes"])
  assert "agent 0.0, depth 2" in answer["panel"] and HOSTILE.strip() in answer["panel"]
