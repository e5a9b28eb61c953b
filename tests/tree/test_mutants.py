"""Each formula of the method, made wrong in one way: a named test must fail. BUILD_NOTES.md lists which says what."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
CREDIT, RECORD = "rao_jax/tree/credit.py", "rao_jax/rollout/engine.py"
MUTANTS = {
  "children's bonus summed": (
    CREDIT, 'gained = total / jnp.maximum(count, 1) if bonus == "rate" else total', "gained = total",
    "tests/tree/test_credit.py::test_bonus_is_the_mean_of_the_childrens_own_success",
  ),
  "compounding bonus": (
    CREDIT, "total = jax.ops.segment_sum(success, slot, N + 1)[:N]",
    "total = jax.ops.segment_sum(success, slot, N + 1)[:N]; "
    "total += delegation_bonus * jax.ops.segment_sum(total, slot, N + 1)[:N]",
    "tests/tree/test_credit.py::test_bonus_does_not_compound_along_a_chain",
  ),
  "own tree inside the baseline": (
    CREDIT, " & ~jnp.eye(len(root_reward), dtype=bool)", "",
    "tests/learn/test_estimator.py::test_so_it_is_with_other_weights_by_depth",
  ),
  "depth weights per token": (
    CREDIT, "weight = depth_weights(buffer.depth, trained, options.max_depth, options.depth_weight_cap)",
    "weight = depth_weights(buffer.depth, trained, options.max_depth) / buffer.sampled.clip(1)",
    "tests/tree/test_credit.py::test_weights_count_trajectories_not_tokens",
  ),
  "crashed trees inside the baseline": (
    CREDIT, "& jnp.asarray(valid)[None, :]", "",
    "tests/tree/test_credit.py::test_crashed_trees_leave_their_group_and_stay_out_of_its_count",
  ),
  "trees whose root failed dropped": (
    RECORD, "valid=tree.fault is None)", "valid=tree.fault is None and tree.root.message is not None)",
    "tests/rollout/test_engine.py::test_agents_that_fail_stay_in_the_record",
  ),
  "a failed child dropped from its parent's mean": (
    "rao_jax/tree/buffer.py", "return buffer.exists & buffer.tree_valid[buffer.tree]",
    "return buffer.exists & buffer.tree_valid[buffer.tree] & (buffer.sampled > 0)",
    "tests/tree/test_credit.py::test_credit_of_a_forest_worked_by_hand",
  ),
  "divided by trained tokens": (
    "rao_jax/learn/losses.py", "return num_minibatches / jnp.maximum(num_nodes, 1), token_scale",
    "return token_scale, token_scale",
    "tests/learn/test_losses.py",
  ),
}  # fmt: skip


@pytest.mark.full
@pytest.mark.parametrize("name", MUTANTS)
def test_the_named_test_catches(name, tmp_path):
  file, right, wrong, test = MUTANTS[name]
  for folder in ("rao_jax", "tests"):
    shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
  source = (tmp_path / file).read_text()
  assert source.count(right) == 1, "the formula is written in another way now: rewrite the mutant"
  (tmp_path / file).write_text(source.replace(right, wrong))
  command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", test]
  env = os.environ | {"PYTHONPATH": str(tmp_path)}
  done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
  assert done.returncode == 1 and "1 failed" in done.stdout, done.stdout[-2000:]
