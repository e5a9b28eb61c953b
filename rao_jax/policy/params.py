"""The parameters as a pytree over a mesh: how each is split, their shapes, the dtype they are used in."""

import functools

import jax

from rao_jax.mesh import Rules
from rao_jax.policy.transformer import INPUT_AXES, LORA, Params, PolicyConfig, init_params

# Logical axes of every parameter, by the last name of its path; stacked layers have `layers` in front.
PARAM_AXES = {
  "embed": ("vocab", "embed"),
  "head": ("embed", "vocab"),
  "norm": (None,),
  "attn_norm": (None,),
  "mlp_norm": (None,),
  "attn_post_norm": (None,),
  "mlp_post_norm": (None,),
  "q_norm": (None,),
  "k_norm": (None,),
  "q": ("embed", "heads", None),
  "k": ("embed", "kv_heads", None),
  "v": ("embed", "kv_heads", None),
  "o": ("heads", None, "embed"),
  "gate": ("embed", "mlp"),
  "up": ("embed", "mlp"),
  "down": ("mlp", "embed"),
  "router": ("embed", None),
  "expert_gate": ("experts", "embed", "mlp"),
  "expert_up": ("experts", "embed", "mlp"),
  "expert_down": ("experts", "mlp", "embed"),
}
STRIPS = jax.tree_util.GetAttrKey("strips")  # the last of the path of a matrix in strips


def param_shardings(config: PolicyConfig, rules: Rules) -> Params:
  """The sharding of every parameter under a rule table, as a pytree like the parameters."""
  return shardings_of(jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)), rules)


def shardings_of(shapes: Params, rules: Rules) -> Params:
  """The sharding of every array of these parameters, also of those by `decode_params`; strips are whole everywhere."""

  def one(path, leaf):
    if path[-1] == STRIPS:
      return rules.replicated
    name, _, side = path[-1].key.partition(LORA)
    axes = PARAM_AXES[name]
    if side:
      inputs = INPUT_AXES.get(name, 1)
      axes = (*axes[:inputs], None) if side == "a" else (None, *axes[inputs:])
    stacked = ("layers",) if leaf.ndim > len(axes) else ()
    return rules.sharding(leaf.shape, stacked + axes)

  return jax.tree_util.tree_map_with_path(one, shapes)


def abstract_params(config: PolicyConfig, rules: Rules) -> Params:
  """Shapes, dtypes and shardings of the parameters under a rule table."""
  return with_shardings(jax.eval_shape(functools.partial(init_params, config), jax.random.key(0)), rules)


def with_shardings(shapes: Params, rules: Rules) -> Params:
  """The same shapes and dtypes with the shardings that a rule table gives them."""
  one = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
  return jax.tree.map(one, shapes, shardings_of(shapes, rules))


def cast_params(params: Params, config: PolicyConfig) -> Params:
  """Parameters in the dtype in which they are used: config.dtype but for the norms. The policy's outputs stay equal."""
  cast = lambda path, x: x if path[-1].key.endswith("norm") else x.astype(config.dtype)
  return jax.tree_util.tree_map_with_path(cast, params)
