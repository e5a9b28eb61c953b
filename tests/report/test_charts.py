"""report/charts.py: what a figure says is what the numbers say."""

import pathlib

from rao_jax.report import charts, data
from rao_jax.report.trees import Dumps, Facts


def experiment(values, name="a", key="x"):
  rows = [{"step": step, key: value} for step, value in enumerate(values, 1)]
  return data.Experiment(name, [data.Run(name, {}, rows, Dumps())])


def facts(success, by_depth):
  by_depth = tuple(by_depth)
  return Facts(pathlib.Path("f"), 0, 0, 0, 0, 0, "t", "easy", success, sum(n for n, _ in by_depth), 0, 0, 0, by_depth)


def test_a_very_long_run_is_drawn_by_means_of_neighbours(monkeypatch):
  monkeypatch.setattr(charts, "MOST", 2)
  assert charts.thin([1, 2, 3, 4, 5], [0, 2, 4, 6, 9]) == [[2, 4.5], [2, 7.5]]
  assert charts.thin([1, 2], [5, 6]) == [[1, 2], [5, 6]]
  assert charts.thin([], []) == [[], []]


def test_a_noisy_curve_is_faint_behind_its_running_mean():
  values = [float(i % 2) for i in range(40)]
  figure = charts.curve([experiment(values)], {"x": ""}, {"a": "#0072B2"})
  faint, strong = figure.data
  assert list(faint.y) == values and not faint.showlegend
  assert strong.y[:3] == (0.5, 1 / 3, 2 / 3)  # 40 points: one on each side


def test_a_curve_that_never_moves_has_an_axis_from_0_on():
  figure = charts.curve([experiment([2.0, 2.0])], {"x": ""}, {"a": "#0072B2"})
  assert figure.layout.yaxis.range == (0, 4.0)
  assert charts.curve([experiment([2.0])], {"x": ""}, {"a": "#0072B2"}) is None


def test_whole_numbers_have_a_bar_each_and_many_share_one():
  colour = {"a": "#0072B2", "b": "#E69F00"}
  a, b = charts.histogram({"a": [0, 0, 1, 3], "b": [1], "c": []}, colour, "depth").data
  assert list(a.x) == [0, 1, 2, 3] and list(a.y) == [0.5, 0.25, 0, 0.25]
  assert list(b.y) == [0, 1, 0, 0]
  wide = charts.histogram({"a": [1, 100]}, colour, "tokens").data[0]
  assert wide.width == 5 * 0.9 and wide.customdata[0] == "1 to 5"  # 100 numbers in 20 bars
  assert (wide.y[0], wide.y[-1], sum(wide.y)) == (0.5, 0.5, 1.0) and wide.customdata[-1] == "96 to 100"
  assert charts.histogram({"a": []}, colour, "tokens") is None


def test_agents_by_depth_are_split_by_their_success():
  success, none = charts.nodes_by_depth([facts(1, [(1, 1.0), (4, 2.5)]), facts(0, [(1, 0.0)])]).data
  assert list(success.y) == [1.0, 2.5] and list(none.y) == [1.0, 1.5]
  assert charts.nodes_by_depth([]) is None
