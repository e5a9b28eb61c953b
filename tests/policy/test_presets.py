import functools
import math

import jax
import pytest

from rao_jax.config import base_config, policy_config, validate
from rao_jax.policy.presets import PRESETS
from rao_jax.policy.transformer import init_params

# As the model cards or files say.
PARAMETERS = {
  "qwen3_0_6b": 596_049_920, "qwen3_1_7b": 1_720_574_976, "qwen3_4b": 4_022_468_096,
  "qwen3_4b_instruct_2507": 4_022_468_096, "qwen3_8b": 8_190_735_360, "qwen3_14b": 14_768_307_200,
  "qwen3_32b": 32_762_123_264, "qwen3_30b_a3b": 30_532_122_624, "llama3_2_1b": 1_235_814_400,
  "llama3_2_3b": 3_212_749_824, "llama3_1_8b": 8_030_261_248, "smollm2_135m": 134_515_008,
  "smollm2_360m": 361_821_120, "smollm2_1_7b": 1_711_376_384, "gemma3_270m": 268_098_176, "gemma3_1b": 999_885_952,
}  # fmt: skip


@pytest.mark.parametrize("name", list(PARAMETERS))
def test_preset_has_the_published_number_of_parameters(name):
  shapes = jax.eval_shape(functools.partial(init_params, PRESETS[name]), jax.random.key(0))
  assert sum(math.prod(x.shape) for x in jax.tree.leaves(shapes)) == PARAMETERS[name]


def test_every_preset_is_counted_but_the_toy():
  assert set(PRESETS) - set(PARAMETERS) == {"qwen3_tiny"}


def config_with(**policy):
  c = base_config()
  c.policy.update(policy)
  return c


def test_a_preset_fills_the_policy_and_leaves_numerics_to_the_config():
  policy = policy_config(config_with(preset="qwen3_4b", dtype="bfloat16", remat=True), 1000)
  assert (policy.layers, policy.vocab_size, policy.rope_base) == (36, 151_936, 1e6)
  assert (policy.dtype, policy.param_dtype, policy.remat) == ("bfloat16", "float32", True)
  assert policy_config(config_with(preset="qwen3_tiny", vocab_size=1024), 1000).vocab_size == 1024


def test_a_number_against_the_preset_is_refused():
  with pytest.raises(ValueError, match=r"config\.policy\.layers=12, but config\.policy\.preset=qwen3_4b says 36"):
    policy_config(config_with(preset="qwen3_4b", layers=12), 1000)


def test_unknown_preset_names_the_known_ones():
  with pytest.raises(ValueError, match=r"config\.policy\.preset='qwen4': choose one of \('qwen3_tiny'"):
    policy_config(config_with(preset="qwen4"), 1000)


def test_a_tokenizer_larger_than_the_preset_is_refused():
  with pytest.raises(ValueError, match=r"vocab_size=512 is less than the tokenizer's 600: set it to 640"):
    policy_config(config_with(preset="qwen3_tiny"), 600)


def test_a_window_beyond_the_context_is_refused():
  c = config_with(preset="smollm2_135m")
  c.caps.window = 8193
  with pytest.raises(ValueError, match=r"config\.caps\.window=8193 is beyond the 8192 positions"):
    policy_config(c, 1000)


def test_half_precision_parameters_are_refused_for_training():
  with pytest.raises(ValueError, match=r"config\.policy\.param_dtype='bfloat16' loses updates"):
    validate(config_with(param_dtype="bfloat16"))
