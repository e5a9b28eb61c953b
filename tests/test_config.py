"""Settings: what cannot work is an error that names the key and the remedy; no key is without a reader."""

import dataclasses
import functools
import inspect

import pytest
from ml_collections import ConfigDict

from experiments import demo
from rao_jax.command import keys
from rao_jax.config import base_config, credit_options, loss_options, policy_config, validate
from rao_jax.mesh import make_mesh
from rao_jax.policy.transformer import PolicyConfig
from rao_jax.rollout.budget import Caps
from rao_jax.rollout.interpreter import Limits


def minimal():
  """The defaults, and what has none."""
  c = base_config()
  c.tasks.train = dict(train_easy=1)
  c.tasks.dev = dict(dev_easy=1)
  return c


def changed(**values):
  c = minimal()
  for key, value in values.items():
    *groups, name = key.split("__")
    node = c
    for group in groups:
      node = node[group]
    node[name] = value
  return c


def test_the_defaults_are_valid_once_tasks_are_named():
  assert validate(minimal()) is None


@pytest.mark.parametrize("agent", ["recursive", "single", "single_4x"])
def test_the_demo_is_valid_for_every_agent(agent):
  c = demo.get_config(agent)
  validate(c)
  assert (c.caps.max_depth > 0) == (agent == "recursive")
  assert c.caps.window == demo.WINDOW * (4 if agent == "single_4x" else 1)


# (changes, what the error says: the key, its value, the remedy)
REFUSED = [
  (dict(caps__max_turns=0), r"caps\.max_turns=0 must be at least 1"),
  (dict(caps__output_tokens=2), r"caps\.output_tokens=2 must be at least 4"),
  (dict(caps__window=100), r"caps\.window=100 leaves no room for a turn: raise it, or lower caps\.min_turn=8"),
  (dict(credit__baseline="mean"), r"baseline='mean': choose 'leave_one_out' or 'group_mean'"),
  (dict(credit__delegation_bonus=-1.0), r"delegation_bonus=-1.0 must not be negative"),
  (dict(credit__leaf_scale=True), r"leaf_scale does nothing.*switch it off or set the bonus"),
  (
    dict(credit__depth_weight_cap=2.0, credit__depth_weighting=False),
    r"depth_weight_cap does nothing without depth_weighting: unset it or set depth_weighting=True",
  ),
  (dict(credit__depth_weight_cap=0.5), r"depth_weight_cap=0.5: below 1 .* set >= 1"),
  (dict(loss__surrogate="dpo"), r"surrogate='dpo': choose 'reinforce', 'ppo' or 'cispo'"),
  (dict(loss__truncation=2.0), r"truncation does nothing with surrogate='cispo': unset it or use 'reinforce'"),
  (dict(loss__entropy_coefficient=-0.1), r"entropy_coefficient must not be negative"),
  (dict(loss__kl_coefficient=-0.1), r"kl_coefficient"),
  (dict(loss__normaliser="mean"), r"config\.loss\.normaliser='mean': choose 'trajectory' or 'token'"),
  (dict(rollouts_per_task=1), r"config\.rollouts_per_task=1 .*leave-one-out baseline: set 2 or more"),
  (
    dict(loss__surrogate="reinforce", learn__minibatches=2),
    r"surrogate=reinforce is on-policy, config\.learn\.minibatches=2 is not: set it to 1, or choose ppo or cispo",
  ),
  (dict(rollout__temperature=0.0), r"config\.rollout\.temperature=0.0 must be above 0"),
  (dict(rollout__least_busy=1.5), r"config\.rollout\.least_busy=1.5 is a share of a batch's rows: set it to 0 to 1"),
  (
    dict(caps__window=1000, rollout__steps=16, rollout__cache_ladder=(128, 1015)),
    r"config\.rollout\.cache_ladder=\(128, 1015\).* = 1016 positions",
  ),
  (
    dict(caps__window=1000, learn__row_lengths=(128, 999)),
    r"config\.learn\.row_lengths=\(128, 999\): its last must hold caps\.window=1000",
  ),
  (
    dict(caps__window=1000, learn__row_lengths=(128, 1000), learn__tokens_per_microbatch=999),
    r"config\.learn\.tokens_per_microbatch=999 holds no row of .*\(128, 1000\): set it to 1000 or more",
  ),
  (dict(tasks__dev={}), r"config\.evaluation\.every=10, but config\.tasks\.dev names no split.*or set it to 0"),
  (dict(warm_start__tokens=1), r"config\.warm_start\.tokens=1, but config\.warm_start\.tasks names no.*or set it to 0"),
  (dict(tasks__train={}), r"config\.tasks\.train names no split to train on, e\.g\. config\.tasks\.train\."),
  (dict(learn__minibatches=0), r"config\.learn\.minibatches=0 must be above 0"),
  (dict(steps=-1), r"config\.steps=-1 must be 0 or more, and finite"),
  (dict(seed=2**31), r"config\.seed=2147483648 must be 0 or more, and at most 2147483647"),
  (dict(learn__b1=1.0), r"config\.learn\.b1=1\.0 must be 0 or more, and at most 0\.999999"),
  (dict(rollout__row_ladder=()), r"config\.rollout\.row_ladder is empty: name at least one"),
  (dict(learn__row_lengths=(0, 8192)), r"config\.learn\.row_lengths=\(0, 8192\) must be above 0"),
  (
    dict(tasks__train=dict(train_easy=-1)),
    r"config\.tasks\.train\.train_easy=-1 must be 0 or more, and finite",
  ),
  (dict(tasks__train=dict(train_easy="all")), r"config\.tasks\.train\.train_easy='all' must be a number of tasks"),
  (dict(tasks__train=dict(train_easy=0)), r"config\.tasks\.train names no split to train on"),
  (dict(checkpoint__keep=1), r"config\.checkpoint\.keep=1 leaves nothing to go back to.*: set 2 or more"),
  (dict(judge__kind="jury"), r"config\.judge\.kind='jury': choose one of .*'endpoint'.*, or module:function"),
  (dict(judge__unreachable="skip"), r"config\.judge\.unreachable='skip': choose 'stop' or 'invalid'"),
  (dict(judge__kind="sparse", judge__roots=True), r"config\.judge\.roots does nothing with config\.judge\.kind=sparse"),
  (dict(judge__kind="endpoint", judge__model="m"), r"kind=endpoint needs config\.judge\.endpoint\.base_url"),
  (dict(judge__in_flight=0), r"config\.judge\.in_flight=0 must be at least 1"),
  (dict(judge__endpoint__asks=0), r"config\.judge\.endpoint\.asks=0 must be at least 1"),
  (dict(judge__endpoint__timeout=0.0), r"config\.judge\.endpoint\.timeout=0.0 must be above 0 seconds"),
]


@pytest.mark.parametrize("changes, message", REFUSED, ids=lambda x: "-".join(x) if isinstance(x, dict) else "")
def test_what_cannot_work_or_does_nothing_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    validate(changed(**changes))


ALLOWED = [
  dict(rollouts_per_task=1, credit__baseline="group_mean"),
  dict(loss__surrogate="reinforce", learn__minibatches=2, loss__truncation=2.0),
  dict(loss__surrogate="reinforce", learn__minibatches=1),
  dict(credit__delegation_bonus=0.5, credit__leaf_scale=True),
  dict(caps__window=1000, rollout__steps=16, rollout__cache_ladder=(128, 1016), learn__row_lengths=(128, 1000)),
  dict(steps=0),
  dict(seed=2**31 - 1),
  dict(tasks__train=dict(train_easy=0, train_hard=1)),
  dict(environment__options=dict(offset=-1), judge__request=dict(presence_penalty=-1.0)),
  dict(tasks__dev={}, evaluation__every=0),
  dict(warm_start__tokens=1, warm_start__tasks={"train_easy": 1}),
  dict(warm_start__tokens=1, warm_start__from_workdir="elsewhere"),
  dict(caps__max_depth=0),
  dict(caps__max_depth=0, judge__kind="policy"),  # as of a single agent beside a recursive one
  dict(judge__kind="policy", judge__roots=True),
  dict(judge__kind="sparse"),
  dict(judge__kind="mine:judge"),
  dict(judge__kind="endpoint", judge__model="m", judge__endpoint__base_url="http://localhost/v1"),
]


@pytest.mark.parametrize("changes", ALLOWED, ids="-".join)
def test_their_nearest_neighbours_are_allowed(changes):
  assert validate(changed(**changes)) is None


@pytest.mark.parametrize("group", [(), ("caps",), ("rollout",), ("loss",), ("tasks",), ("warm_start",)])
def test_an_unknown_key_is_an_error(group):
  c = base_config()
  for name in group:
    c = c[name]
  with pytest.raises(AttributeError, match="wrong_key"):
    c.wrong_key = 1
  with pytest.raises((AttributeError, KeyError), match="wrong_key"):
    c.update({"wrong_key": 1})


@pytest.mark.parametrize(
  "group", ["environment.options", "tasks.train", "tasks.dev", "judge.request", "warm_start.tasks", "warm_start.slips"]
)
def test_groups_whose_keys_an_environment_names_are_open(group):
  c = base_config()
  for name in group.split("."):
    c = c[name]
  c.whatever = 1
  assert c.to_dict() == {"whatever": 1}


def test_the_sparse_judge_is_the_credits_sparse_option():
  assert not credit_options(minimal()).sparse and credit_options(changed(judge__kind="sparse")).sparse


def test_a_value_of_another_type_is_an_error():
  with pytest.raises(TypeError):
    base_config().caps.window = "wide"


def test_two_configs_share_nothing():
  a, b = base_config(), base_config()
  a.tasks.train.easy = 1
  a.caps.window = 1
  assert not b.tasks.train and b.caps.window == Caps().window


def test_the_embedding_holds_the_tokenizers_tokens():
  c = base_config()
  assert [policy_config(c, n).vocab_size for n in (1, 64, 65, 300)] == [64, 64, 128, 320]
  c.policy.vocab_size = 256
  assert policy_config(c, 256).vocab_size == 256
  with pytest.raises(ValueError, match=r"config\.policy\.vocab_size=256 is less than the tokenizer's 257: set it to 0"):
    policy_config(c, 257)


def test_a_zero_stands_for_none_where_the_options_want_none():
  c = minimal()
  assert credit_options(c).depth_weight_cap is None and loss_options(c).truncation is None
  c = changed(credit__depth_weight_cap=4.0, loss__surrogate="reinforce", loss__truncation=2.0, caps__max_depth=3)
  assert (credit_options(c).depth_weight_cap, credit_options(c).max_depth, loss_options(c).truncation) == (4.0, 3, 2.0)


# --- groups that are handed over whole; test_train.py has the readers of all others ---

EXPANDED = {  # groups handed over whole, and the names that take them
  "caps": {field.name for field in dataclasses.fields(Caps)},
  "sandbox": {field.name for field in dataclasses.fields(Limits)},
  "policy": {field.name for field in dataclasses.fields(PolicyConfig)} | {"path", "preset"},
  "credit": {field.name for field in dataclasses.fields(credit_options(base_config()))} - {"max_depth", "sparse"},
  "loss": {field.name for field in dataclasses.fields(loss_options(base_config()))} | {"normaliser"},
  "mesh": set(inspect.signature(make_mesh).parameters) - {"devices"},
}


@pytest.mark.parametrize("group", EXPANDED)
def test_a_group_handed_over_whole_has_exactly_the_names_that_take_it(group):
  assert set(base_config()[group]) == EXPANDED[group]


def test_every_number_has_bounds():
  c = minimal()
  for key in keys(c):
    *groups, name = key.split(".")
    node = functools.reduce(ConfigDict.__getitem__, groups, c)
    value = node[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or groups == ["policy"]:
      continue
    for bad in (-1, *((float("nan"), float("inf")) if isinstance(value, float) else ())):
      node[name] = -5 if groups == ["mesh"] else bad
      with pytest.raises(ValueError, match=rf"\b{name}"):
        validate(c) if groups != ["mesh"] else make_mesh(**c.mesh.to_dict())
      node[name] = value
    assert validate(c) is None


def test_numbers_of_the_policy_have_bounds():
  for name, value in base_config().policy.items():
    if not isinstance(value, bool) and isinstance(value, int | float):
      with pytest.raises(ValueError, match=rf"\b{name}"):
        validate(changed(**{f"policy__{name}": -1}))
