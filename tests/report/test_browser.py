"""The page in a real browser, at the width of a desk and of a phone: what a user clicks on works and tells no error."""

import json
import random
import shutil

import pytest

from rao_jax.report import write_report
from tests.report.browser import chromium
from tests.report.fakes import HOSTILE, SUMMARY, fake_demo, fake_tree

pytestmark = pytest.mark.full
SIZES = pytest.mark.parametrize("width, phone", [(1400, False), (390, True)])
SEEN = HOSTILE.replace("\u2028", "<2028>").replace("\u202e", "<202e>").replace("\x00", "<00>").replace("\x1b", "<1b>")


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
  with chromium(tmp_path_factory.mktemp("profile")) as page:
    yield page


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
  """The page of three agents, with a group of four rollouts of one step; texts of the second are hostile."""
  folder = tmp_path_factory.mktemp("demo")
  runs = fake_demo(folder)
  trees = [fake_tree(random.Random(i), 9, i, 3, "hard", i > 0) | {"group": 0, "task": "t"} for i in range(4)]
  trees[1]["nodes"][2] |= {"goal": HOSTILE}
  trees[1]["nodes"][2]["turns"][0] |= {"cell": HOSTILE, "output": HOSTILE}
  dump = "".join(json.dumps(tree) + "\n" for tree in trees)
  (runs[0] / "trees" / "step_000009.jsonl").write_text(dump)
  write_report(runs, folder / "report.html", SUMMARY)
  return folder / "report.html", trees


def text(browser, selector):
  return browser.ask(f"document.querySelector({json.dumps(selector)}).textContent")


def agent(path):
  return f'.side:not([hidden]) .node[data-path="{path}"]'


def demo_elsewhere(path):
  """Another address, so that the browser loads it anew."""
  shutil.copy(path, path.with_name("copy.html"))
  return path.with_name("copy.html")


@SIZES
def test_a_tree_is_chosen_and_an_agent_is_read(browser, demo, width, phone):
  path, trees = demo
  browser.open(path, width, phone=phone)
  browser.wait("document.querySelector('.node')")
  browser.choose("#step-choice", "step_000009")
  browser.wait("document.querySelector('.side-title code').textContent === 'step_000009/0'")
  assert "2 of 4 solved" not in text(browser, "#task-choice") and "3 of 4 solved" in text(browser, "#task-choice")
  rollout = browser.ask("document.querySelector('#rollout-choice').options[1].value")
  browser.choose("#rollout-choice", rollout)
  browser.wait("document.querySelector('.side-title code').textContent === 'step_000009/1'")
  assert browser.ask("document.querySelectorAll('.side:not([hidden]) .node').length") == len(trees[1]["nodes"])
  browser.click(agent("0.0") + " circle")
  panel = text(browser, ".panel")
  assert panel.startswith("agent 0.0, depth 2") and panel.count(SEEN[:-4]) == 3  # goal, cell, output
  for figure in ("reward1", "baseline0.625", "advantage+0.375", "weight0.8", "tokens210", "sampled74"):
    assert figure in panel
  browser.click(agent("root") + " circle")
  assert "1 refused" in text(browser, ".panel .launches")
  browser.click(".panel .chip")  # the first agent that it launched
  assert text(browser, ".panel").startswith("agent 0, depth 1")
  browser.ask("document.querySelector('.drawing').focus()")
  browser.key("ArrowRight")
  assert text(browser, ".panel").startswith("agent 0.0, depth 2")
  browser.key("Home")
  assert text(browser, ".panel").startswith("root agent")
  assert browser.ask("document.title") == "rao_jax report" and browser.told == []
  address = browser.ask("location.hash")
  assert address == "#tree=recursive%2Fstep_000009%2F1"
  browser.open(demo_elsewhere(path), width, phone=phone, part=address)
  browser.wait("document.querySelector('.side-title code')?.textContent === 'step_000009/1'")


@SIZES
def test_two_rollouts_stand_side_by_side(browser, demo, width, phone):
  path, _ = demo
  browser.open(path, width, phone=phone)
  browser.wait("document.querySelector('.node')")
  browser.choose("#step-choice", "step_000009")
  browser.wait("document.querySelector('.side-title code').textContent === 'step_000009/0'")
  other = browser.ask(
    "[...document.querySelectorAll('#other-choice option')].find(o => o.text.includes('rollout 3')).value"
  )
  browser.choose("#other-choice", other)
  browser.wait("document.querySelector('#tree-sides.two')")
  shown = "[...document.querySelectorAll('.side:not([hidden])')].map(s => s.querySelector('code').textContent)"
  assert browser.ask(shown) == ["step_000009/0", "step_000009/2"]
  cells = browser.ask(
    "[...document.querySelectorAll('#tree-difference tr')].map(r => [...r.cells].map(c => c.textContent))"
  )
  cells = cells if phone else [list(column) for column in zip(*cells)]  # two columns on a phone, two rows else
  assert cells[:2] == [["", "recursive, step_000009/0", "recursive, step_000009/2"], ["success", "0", "1"]]
  browser.click(agent("0") + " circle")
  panels = "[...document.querySelectorAll('.panel')].map(p => p.textContent.slice(0, 16))"
  assert browser.ask(panels) == ["agent 0, depth 1", "agent 0, depth 1"]
  lefts = browser.ask("[...document.querySelectorAll('.side')].map(s => s.getBoundingClientRect().left)")
  assert (lefts[0] == lefts[1]) == phone
  browser.choose("#other-choice", "")
  browser.wait("document.querySelector('.side[hidden]')")
  assert browser.told == []


@SIZES
def test_all_figures_are_drawn_and_nothing_is_wider_than_the_page(browser, demo, width, phone):
  browser.open(demo[0], width, phone=phone)
  browser.wait("document.querySelector('.node')")
  for y in range(0, browser.ask("document.documentElement.scrollHeight"), 800):
    browser.ask(f"scrollTo(0, {y})")
    browser.frames()
  browser.wait("[...document.querySelectorAll('.figure')].every((figure) => figure.querySelector('.main-svg'))")
  assert browser.ask("document.documentElement.scrollWidth <= innerWidth")
  reach = (
    "Math.max(...[...document.querySelectorAll('.main-svg, .card, h1')].map(e => e.getBoundingClientRect().right))"
  )
  assert browser.ask(reach) <= width
  assert browser.told == []


@SIZES
def test_curves_are_drawn_against_what_their_steps_have_cost(browser, demo, width, phone):
  browser.open(demo[0], width, phone=phone)
  browser.ask("document.querySelector('#axis-choice').scrollIntoView()")
  curve = "[...document.querySelectorAll('.figure.js-plotly-plot')].find(f => f.data.some(t => t.meta))"
  browser.wait(curve)
  xs = f"({curve}).data.map(t => [...t.x])"
  steps = browser.ask(xs)
  seen = {"step": steps}
  for axis in ("tokens sampled", "minutes", "step"):
    browser.choose("#axis-choice", axis)
    browser.wait(f"({curve}).layout.xaxis.title.text === {json.dumps(axis)}")
    seen[axis] = browser.ask(xs)
  assert seen["step"] == steps != seen["tokens sampled"] != seen["minutes"]
  for xs in seen["tokens sampled"] + seen["minutes"]:
    assert xs == sorted(xs)
  assert browser.told == []


@SIZES
def test_ten_thousand_agents_are_drawn_as_far_as_they_are_seen(browser, tmp_path, width, phone):
  nodes = [{"path": [], "parent": -1, "goal": "all", "success": 1.0, "turns": []}]
  for i in range(1, 10_000):
    parent = (i - 1) // 3
    more = {"goal": f"part {i}", "success": float(i % 5 > 0), "turns": [{"cell": f"c{i}", "output": ""}]}
    nodes.append({"path": [*nodes[parent]["path"], (i - 1) % 3], "parent": parent, **more})
  (tmp_path / "trees").mkdir()
  (tmp_path / "trees" / "step_000001.jsonl").write_text(json.dumps({"step": 1, "task": "t", "nodes": nodes}) + "\n")
  write_report([tmp_path], tmp_path / "report.html")
  browser.open(tmp_path / "report.html", width, phone=phone)
  browser.wait("document.querySelector('.node')")
  assert "10,000 agents, depth 9" in " ".join(text(browser, ".side-title").split())
  drawn = "document.querySelectorAll('.drawing *').length"
  assert browser.ask(drawn) < 1000
  browser.click(".overview")  # its middle
  browser.wait("document.querySelector('.drawing').scrollTop > 100000")
  browser.wait("document.querySelector('.node') && document.querySelector('.node').dataset.node > 1000")
  assert browser.ask(drawn) < 1000
  middle = browser.ask("document.querySelectorAll('.node')[8].dataset.path")
  browser.click(agent(middle) + " circle")
  assert text(browser, ".panel").startswith(f"agent {middle}, depth {middle.count('.') + 1}")
  assert browser.told == []
