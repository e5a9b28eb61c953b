"""report/: one self-contained page from runs that may be incomplete, whatever texts the agents wrote."""

import base64
import html.parser
import json
import random
import re
import shutil
import zlib

import pytest

from rao_jax.report import __main__ as cli
from rao_jax.report import data, overview, page, write_report
from tests.report.fakes import HOSTILE, SUMMARY, fake_demo, fake_run, fake_tree


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

  @property
  def shown(self):
    return " ".join(" ".join(self.texts).split())


def unpack(packed):
  return json.loads(zlib.decompress(base64.b64decode(packed)))


def page_data(text):
  found = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)[1])
  return found | {"index": unpack(found["index"])}


def tree_of(text, number):
  """(columns, texts) of a tree of the page."""
  found = page_data(text)
  entry = found["index"][number]
  chunk = unpack(found["chunks"][entry["chunk"]])
  return chunk["trees"][entry["at"]], chunk["texts"]


def report(tmp_path, *arguments):
  write_report(*arguments[:1], tmp_path / "report.html", *arguments[1:])
  return (tmp_path / "report.html").read_text()


def test_the_page_holds_everything_and_its_numbers(tmp_path):
  text = report(tmp_path, fake_demo(tmp_path), SUMMARY)
  found = Resources(text)
  assert found.fetched == [] and found.scripts == 3
  assert "default-src 'none'" in text and "@import" not in text.split("<script")[0]
  for expected in [
    "84.5% of hard tasks; without delegation it is 3.5%",
    "84.5% (78.8\N{EN DASH}88.9%)",  # as the summary gives it
    "94% (87.5\N{EN DASH}97.2%)",  # Wilson, 94 of 100
    "2.52M", "100 / 100 / 200", "13.4 min", "in training no tree went below 3", "512 tokens", "rollout.max_depth",
    "trained on 1,800,000 71.4%",  # 15,000 of 21,000 tokens in each of 120 steps
  ]:  # fmt: skip
    assert expected in found.shown, expected
  assert len(page_data(text)["figures"]) > 20


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
  assert "How to read this page" in report(tmp_path, runs, summary)


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
  text = report(tmp_path, [tmp_path])
  assert "3 dump line(s) could not be read" in text
  assert len(page_data(text)["index"]) == 1
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
  text = report(tmp_path, {HOSTILE: runs[0]}, summary)
  found = Resources(text)
  assert found.scripts == 3 and found.images == 0 and found.fetched == []
  columns, texts = tree_of(text, 0)
  (cell, output, launches) = columns["turns"][0][0]
  assert texts[cell] == texts[output] == texts[columns["goal"][0]] == HOSTILE and launches == -1
  for figure in page_data(text)["figures"].values():  # plotly reads a few tags in names
    assert "<" not in json.dumps([trace.get("name") for trace in figure["data"]])


def test_scores_between_0_and_1_are_no_rates(tmp_path):
  fake_run(tmp_path / "run", random.Random(0), 0.03, [0])
  path = tmp_path / "run" / "trees" / "test.jsonl"
  tree = json.loads(path.read_text())
  tree["nodes"][0]["success"] = 0.25
  path.write_text(json.dumps(tree) + "\n")
  shown = Resources(report(tmp_path, [tmp_path / "run"])).shown
  assert "has a mean score of 0.8" in shown and "Mean score by difficulty" in shown
  assert "solves" not in shown and "tasks solved" not in shown


def test_seeds_of_one_experiment_are_one_column_with_their_range(tmp_path):
  for seed, rate in enumerate([0.02, 0.04]):
    fake_run(tmp_path / f"agent_seed{seed}", random.Random(seed), rate, [1, 2], seed=seed)
  runs = [tmp_path / f"agent_seed{seed}" for seed in range(2)]
  for run, success in zip(runs, [0.5, 0.75]):
    test = {"splits": {"test_hard": {"success": success, "interval": [0, 1]}}}
    (run / "test_last.json").write_text(json.dumps(test))
  text = report(tmp_path, runs)
  shown = Resources(text).shown
  assert "The agent agent solves 62.5% of hard tasks" in shown
  assert "agent 2 seeds" in shown and "success, test, hard 62.5% (50%\N{EN DASH}75%)" in shown
  curve = next(f for f in page_data(text)["figures"].values() if any(t.get("fill") == "tonexty" for t in f["data"]))
  assert [t.get("name") for t in curve["data"] if t.get("name")] == ["agent", "agent"]  # training and evaluation


def test_alarms_say_where_they_rang(tmp_path):
  run = tmp_path / "run"
  run.mkdir()
  rows = [{"step": s, "train/success": 0.5, "train/refused_at_caps": 0.5 if s in (2, 3) else 0.0} for s in range(1, 5)]
  rows += [{"step": 4, "eval/success": 0.5, "eval/refused_at_caps": 0.3}]
  (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
  shown = Resources(report(tmp_path, [run])).shown
  assert "refused at caps 30% of launches are refused at a cap now run, evaluation 1 of 1 25%" in shown
  assert "refused at caps 50% of launches are refused at a cap until step 3 run, training 2 of 4 25%" in shown
  (run / "metrics.jsonl").write_text(json.dumps(rows[0]) + "\n")
  assert "No alarm in 1 rows" in report(tmp_path, [run])


def test_an_evaluation_shows_what_recursion_brought_and_cost(tmp_path):
  def agent(name, success, tokens):
    row = {"tasks": 20, "success": success, "interval": [success - 0.1, success + 0.1], "nodes_per_tree": 4.0}
    row |= {"sampled_tokens_per_tree": tokens, "critical_path_per_tree": tokens / 2}
    return {"name": name, "splits": {"dev_hard": row}, "tiers": {"2": row, "3": row}}

  points = [
    {"agent": name, "k": k, "success": 0.5, "tokens": 100 * k, "critical_path": 100, "dominated": dominated}
    for name, k, dominated in [("ours", 1, []), ("ours", 2, ["tokens"]), ("alone", 1, [])]
  ]
  against = {"against": {"dev_hard": {"success": 0.25, "interval": [0.125, 0.375]}}}
  found = agent("ours", 0.75, 500) | {
    "checkpoint": "last", "step": 7, "max_depth": 6, "window": 384, "k": 2, "temperature": 1.0,
    "single": [agent("alone", 0.5, 250) | against], "pareto": {"dev_hard": points},
  }  # fmt: skip
  (tmp_path / "run" / "evaluations").mkdir(parents=True)
  (tmp_path / "run" / "evaluations" / "a.json").write_text(json.dumps(found))
  (tmp_path / "run" / "evaluations" / "b.json").write_text('{"splits": {"being wri')
  text = report(tmp_path, [tmp_path / "run"])
  shown = Resources(text).shown
  assert "run: last checkpoint of step 7, depth cap 6, window 384, 2 tree(s) a task, temperature 1" in shown
  assert "dev hard, ours 20 75% (65.0\N{EN DASH}85.0%) 4.0 500 250" in shown
  assert "dev hard, alone 20 50% (40.0\N{EN DASH}60.0%) -0.250 (-0.375 to -0.125) 4.0 250 125" in shown
  tiers, tokens, chain = page_data(text)["figures"].values()
  assert [trace["x"] for trace in tiers["data"]] == [[2, 3], [2, 3]]
  assert tokens["data"][0]["marker"]["symbol"] == ["circle", "circle-open"]
  assert chain["data"][0]["marker"]["symbol"] == ["circle", "circle"]


def test_the_config_shows_first_where_runs_differ(tmp_path):
  for name, rate in [("a", 1), ("b", 2)]:
    (tmp_path / name).mkdir()
    (tmp_path / name / "config.json").write_text(json.dumps({"learn": {"rate": rate, "clip": 1}, name: 0}))
  shown = overview.config(data.read_runs([tmp_path / "a", tmp_path / "b"]))
  differing, everything = shown.split("<details>")
  assert "learn.rate" in differing and "learn.clip" not in differing and "learn.clip" in everything
  assert "not set" in differing


def test_command_line_finds_the_summary_beside_the_runs(tmp_path, capsys):
  runs = fake_demo(tmp_path)
  cli.main([f"--workdir={runs[0]}", f"--workdir={runs[1]}"])
  assert capsys.readouterr().out.strip() == str(runs[0] / "report.html")
  assert "84.5% of hard tasks" in (runs[0] / "report.html").read_text()
  with pytest.raises(SystemExit):
    cli.main([f"--workdir={tmp_path / 'nowhere'}"])
  assert "is not a directory" in capsys.readouterr().err


def test_the_summary_of_one_demo_is_not_taken_for_the_runs_of_two(tmp_path):
  runs = [fake_demo(tmp_path / name)[0] for name in ("one", "two")]
  assert cli.summary_beside(runs) is None
  assert cli.summary_beside(runs[:1]) == tmp_path / "one" / "summary.json"


def test_command_line_prints_a_tree_and_an_agent(tmp_path, capsys):
  workdir = str(fake_demo(tmp_path)[0])
  cli.main(["--workdir", workdir, "--tree=test/3", "--text"])
  assert "textcraft_synth.hard.test.3, step 120: solved" in capsys.readouterr().out
  cli.main(["--workdir", workdir, "--tree=test/3", "--text", "--node=0.0"])
  assert ">>> # the parts first" in capsys.readouterr().out
  for words, told in [
    (["--tree=test/99", "--text"], "there are test/0..11"),
    (["--text"], "--text prints the tree that --tree names"),
    (["--tree=test/3", "--node=0"], "--text prints the tree that --tree names"),
    (["--tree=test/3", "--text", "--node=7"], "no agent 7 in this tree"),
    (["--tree=test/3", "--text", "--node=x"], "write root, or launches from the root on"),
  ]:
    with pytest.raises(SystemExit):
      cli.main(["--workdir", workdir, *words])
    assert told in capsys.readouterr().err


def test_a_tree_that_is_asked_for_is_on_the_page_whatever_its_size(tmp_path):
  runs = fake_demo(tmp_path)
  text = page.render(data.read_runs(runs), None, "test/3")
  assert page_data(text)["first"] == ["recursive", "test/3"]
  text = page.render(data.read_runs(runs), None, "test/3", room=0)
  assert [entry["id"] for entry in page_data(text)["index"]] == ["test/3"]
  assert "12 more trees of the dumps had no room" in text
  with pytest.raises(ValueError, match="no tree test/99"):
    page.render(data.read_runs(runs), None, "test/99")
