"""Small models of every family against the logits that transformers gave them (make_fixtures.py)."""

import functools
import pathlib

import jax
import numpy as np
import pytest

from rao_jax.mesh import ROLLOUT_RULES, make_mesh
from rao_jax.policy import forward, from_pretrained, save_pretrained
from rao_jax.policy.cache import make_pool
from rao_jax.rollout.generate import Rows, decode, extend
from tests.policy.make_fixtures import FIXTURES, MODELS
from tests.tiny import one_device

STEPS, CHUNK = 8, 16  # tokens of a decode slice, of an extend call
forward_jit = jax.jit(forward, static_argnums=1)
families = pytest.mark.parametrize("name", list(MODELS))


@functools.cache
def fixture(name):
  with np.load(FIXTURES / name / "expected.npz") as expected:
    return *from_pretrained(FIXTURES / name), expected["tokens"], expected["logits"]


@families
def test_forward_is_that_of_transformers(name):
  config, params, tokens, expected = fixture(name)
  assert np.abs(expected).max() > 3
  np.testing.assert_allclose(forward_jit(params, config, tokens), expected, atol=1e-4, rtol=0)


def decoded(config, params, tokens, extended, temperature):
  """Token by token through the cache: for every position of every row a token drawn there, and its log-probability.

  A row of the batch is one position: it is fed all tokens up to there and samples once. The first `extended` tokens
  are put into the cache by chunks, the others by slices.
  """
  B, S = tokens.shape
  row, place = (x.reshape(-1) for x in np.mgrid[:B, extended:S])
  W, rules, mask = len(row), one_device(ROLLOUT_RULES), np.ones(config.vocab_size, bool)
  slots, i32 = np.arange(W, dtype=np.int32), np.int32
  common = dict(config=config, rules=rules, cache_length=S)
  put = jax.jit(functools.partial(extend, **common))
  step = jax.jit(functools.partial(decode, **common, steps=STEPS, least_busy=0.0, end_token=-1))
  keys = np.asarray(jax.vmap(jax.random.key_data)(jax.random.split(jax.random.key(5), W)))
  pool = make_pool(config, W, S, rules)
  for at in range(0, extended, CHUNK):
    pool = put(params, pool, None, slots, np.zeros(W, i32), np.full(W, at, i32), tokens[row, at : at + CHUNK])
  token, logp = np.zeros(W, i32), np.zeros(W, np.float32)
  for at in range(extended, S, STEPS):
    here = (at <= place) & (place < at + STEPS)
    rows = Rows(
      slots, np.zeros(W, i32), np.full(W, at, i32), tokens[row, at : at + STEPS],
      np.where(here, place - at, STEPS).astype(i32), (place >= at).astype(i32), keys,
    )  # fmt: skip
    pool, out = step(params, pool, None, rows, mask, np.float32(temperature))
    assert np.array_equal(np.asarray(out.sampled).sum(1), here)
    token[here], logp[here] = (np.asarray(x)[here, place[here] - at] for x in (out.token, out.logp))
  return row, place, token, logp


@families
@pytest.mark.parametrize("extended", [0, 2 * CHUNK], ids=["decode", "extend"])
def test_cached_decode_is_that_of_transformers(name, extended):
  config, params, tokens, expected = fixture(name)
  row, place, token, logp = decoded(config, params, tokens, extended, 1.0)
  logps = np.asarray(jax.nn.log_softmax(expected))[row, place]
  assert len(set(token.tolist())) > 8
  np.testing.assert_allclose(logp, logps[np.arange(len(token)), token], atol=1e-4, rtol=0)


def test_cached_decode_takes_the_most_likely_token_of_transformers():
  config, params, tokens, expected = fixture("gemma3")
  row, place, token, _ = decoded(config, params, tokens, 0, 0.0)
  np.testing.assert_array_equal(token, expected.argmax(-1)[row, place])


@families
def test_saved_in_shards_and_loaded_again_it_is_the_same(name, tmp_path):
  config, params, *_ = fixture(name)
  save_pretrained(tmp_path, config, params, max_shard_size=20_000)
  assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
  again_config, again = from_pretrained(tmp_path)
  assert again_config == config
  jax.tree.map(np.testing.assert_array_equal, again, params)


@pytest.mark.parametrize("name", ["qwen3_moe", "gemma3"])
def test_on_a_mesh_parameters_are_born_split_and_forward_is_the_same(name):
  config, params, tokens, expected = fixture(name)
  _, split = from_pretrained(FIXTURES / name, make_mesh(data=2, fsdp=2, tensor=2))
  jax.tree.map(np.testing.assert_array_equal, split, params)
  assert split["blocks"]["q"].addressable_shards[0].data.shape == (config.layers, 16, 2, 8)
  np.testing.assert_allclose(forward_jit(split, config, tokens), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", list(MODELS))
def test_fixtures_stay_small(name):
  assert sum(file.stat().st_size for file in pathlib.Path(FIXTURES / name).iterdir()) < 300_000
