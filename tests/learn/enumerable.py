"""A task whose every tree can be written down: exact expectations of rewards, gradients and our estimator, in float64.

  python -m tests.learn.enumerable       prints how far the local gradient is from the full one

The root samples two tokens, a kind and a style. Kind 0 and 1 answer at once, 2 launches one child, which may launch a
child of its own, 3 launches two children at once. One policy acts everywhere: its logits are those of the place (which
node, which token) plus a part that all places share. Success is a table drawn at random over what the node and its
descendants did.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rao_jax.learn.losses import LossOptions, policy_gradient_loss
from rao_jax.tree.buffer import TreeBuffer
from rao_jax.tree.credit import CreditOptions, credit

MOST_NODES, MOST_TOKENS, MAX_DEPTH = 3, 2, 2
KIND, STYLE, CHILD, GRANDCHILD, TWIN = range(5)  # places: kind 2 has a child and that a grandchild, kind 3 has twins


class Node(NamedTuple):
  places: tuple[int, ...]  # of its tokens
  tokens: tuple[int, ...]
  parent: int
  depth: int


def all_trees(kinds: int, styles: int) -> list[tuple[Node, ...]]:
  """Roots first; only so many kinds and styles are there to choose from."""
  out = []
  for kind, style in itertools.product(range(kinds), range(styles)):
    root = Node((KIND, STYLE), (kind, style), -1, 0)
    if kind < 2:
      out.append((root,))
    elif kind == 2:
      for token in range(3):
        child = Node((CHILD,), (token,), 0, 1)
        out += (
          [(root, child, Node((GRANDCHILD,), (t,), 1, 2)) for t in range(2)] if token == 2 else [(root, child)]
        )  # fmt: skip
    else:
      out += [(root, *(Node((TWIN,), (t,), 0, 1) for t in pair)) for pair in itertools.product(range(2), repeat=2)]
  return out


class Task:
  """All trees of the task as arrays [M trees, 3 nodes], and exact expectations over them.

  Args:
    kinds, styles: how many there are to choose from; 4 and 2 make 20 trees.
    seed: of the success table and of the policy `theta`.
    deeper: added to the logits of launching at depths 0 and 1.
  """

  def __init__(self, kinds: int = 4, styles: int = 2, seed: int = 0, deeper: float = 0.0):
    rng = np.random.default_rng(seed)
    every = all_trees(kinds, styles)
    self.choices = np.array([kinds, styles, 3, 2, 2])
    M = len(every)
    shape = (M, MOST_NODES)
    self.exists, self.parent = np.zeros(shape, bool), np.full(shape, -1)
    self.depth, self.sampled, self.success = np.zeros(shape, int), np.zeros(shape, int), np.zeros(shape)
    self.place, self.token = np.zeros((*shape, MOST_TOKENS), int), np.zeros((*shape, MOST_TOKENS), int)
    self.is_action = np.zeros((*shape, MOST_TOKENS), bool)
    table = {}  # what a node and its descendants did -> success
    for m, tree in enumerate(every):
      for n, node in enumerate(tree):
        self.exists[m, n], self.parent[m, n], self.depth[m, n] = True, node.parent, node.depth
        count = self.sampled[m, n] = len(node.tokens)
        self.place[m, n, :count], self.token[m, n, :count], self.is_action[m, n, :count] = (
          node.places,
          node.tokens,
          True,
        )
        below = tuple(other.tokens for other in tree[n:]) if node.depth < 2 and node.places != (TWIN,) else node.tokens
        self.success[m, n] = table.setdefault((node.places, node.tokens, below), rng.random())
    self.theta = {"place": rng.normal(size=(5, 4)), "shared": rng.normal(size=4)}
    self.theta["place"][[KIND, CHILD], 2] += deeper

  def token_logp(self, theta) -> jax.Array:
    """f64[M, nodes, tokens], 0 where there is none."""
    possible = np.arange(4) < self.choices[:, None]
    logp = jax.nn.log_softmax(jnp.where(possible, theta["place"] + theta["shared"], -jnp.inf))
    return jnp.where(self.is_action, logp[self.place, self.token], 0)

  def probability(self, theta) -> jax.Array:
    """f64[M]."""
    return jnp.exp(self.token_logp(theta).sum((1, 2)))

  def rewards(self, bonus: float) -> np.ndarray:
    """R of every node, [M, nodes], by the definition, in plain Python."""
    out = np.zeros(self.exists.shape)
    for m, n in np.argwhere(self.exists):
      children = [self.success[m, c] for c in range(MOST_NODES) if self.exists[m, c] and self.parent[m, c] == n]
      out[m, n] = self.success[m, n] + (bonus * sum(children) / len(children) if children else 0)
    return out

  def local_gradient(self, bonus: float, weights=(1.0, 1.0, 1.0)):
    """sum_X w_{depth of X} d/dtheta E[R(X)], the policy live at X alone and frozen at all other nodes of the tree.

    A node is named by its number in the tree; what stands there differs from tree to tree, and so do its tokens.
    """
    rewards, weights = self.rewards(bonus), np.array(weights)

    def expected(theta, n):
      live, still = self.token_logp(theta), jax.lax.stop_gradient(self.token_logp(theta))
      at = np.arange(MOST_NODES)[:, None] == n
      p = jnp.exp(jnp.where(at, live, still).sum((1, 2)))
      return jnp.sum(p * self.exists[:, n] * weights[self.depth[:, n]] * rewards[:, n])

    parts = [jax.grad(expected)(self.theta, n) for n in range(MOST_NODES)]
    return jax.tree.map(lambda *x: sum(x), *parts)

  def full_gradient(self, bonus: float):
    """d/dtheta E[sum_X R(X)], the policy live everywhere."""
    return jax.grad(lambda theta: self.probability(theta) @ self.rewards(bonus).sum(1))(self.theta)

  # -- batches: every way to draw them ---------------------------------------------------------------------------------

  def draws(self, count: int) -> np.ndarray:
    """i[M^count, count], every tuple of trees."""
    return np.stack(np.meshgrid(*[np.arange(len(self.exists))] * count, indexing="ij"), -1).reshape(-1, count)

  def buffers(self, draws: np.ndarray, group_size: int, crashed=()) -> TreeBuffer:
    """A stack of buffers, one for each row of draws; trees at the positions `crashed` are invalid."""
    K, T = draws.shape
    flat = lambda x: x[draws].reshape(K, T * MOST_NODES)
    tree = np.broadcast_to(np.repeat(np.arange(T), MOST_NODES), (K, T * MOST_NODES))
    parent = flat(self.parent)
    per_tree = lambda x: np.broadcast_to(x, (K, T))
    return TreeBuffer(
      tokens=None, behaviour_logp=None, is_action=None, start=flat(self.sampled), length=flat(self.sampled),
      sampled=flat(self.sampled), parent=np.where(parent < 0, -1, parent + tree * MOST_NODES), depth=flat(self.depth),
      tree=tree, success=flat(self.success), exists=flat(self.exists), group=per_tree(np.arange(T) // group_size),
      root=per_tree(np.arange(T) * MOST_NODES), tree_valid=per_tree(~np.isin(np.arange(T), crashed)),
    )  # fmt: skip

  def estimate(self, count: int, group_size: int, options: CreditOptions, normalised: bool, crashed=(), weights=None):
    """The expectation of our gradient over all batches of `count` trees: credit and loss are the trainer's own.

    Args:
      count, group_size: trees of a batch and of a group.
      options: of credit.
      normalised: divided by the number of trajectories, as in training; else by the number of trees.
      crashed: positions of invalid trees.
      weights: by depth, in place of those that credit gives.
    """
    draws = self.draws(count)
    assigned = jax.vmap(lambda buffer: credit(buffer, options))(self.buffers(draws, group_size, crashed))
    split = lambda x: x.reshape(len(draws), count, MOST_NODES)
    weight, advantage = split(assigned.weight), split(assigned.advantage)
    if weights is not None:
      weight = np.array(weights)[self.depth[draws]] * (weight > 0)
    trees = assigned.stats.trained_nodes if normalised else count - len(crashed)
    share = self.probability(self.theta)[draws].prod(1) / trees

    def loss(theta):
      logp = self.token_logp(theta)[draws]
      spread = lambda x: jnp.broadcast_to(x[..., None], logp.shape)
      return policy_gradient_loss(
        logp, jax.lax.stop_gradient(logp), spread(advantage), spread(weight * share[:, None, None]),
        self.is_action[draws], jnp.zeros_like(logp), LossOptions(surrogate="reinforce"),
      )[0]  # fmt: skip

    return jax.tree.map(jnp.negative, jax.jit(jax.grad(loss))(self.theta))


def distance(a, b) -> tuple[float, float]:
  """|a - b| / |b| and the cosine between them."""
  a, b = (np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)]) for tree in (a, b))
  return float(np.linalg.norm(a - b) / np.linalg.norm(b)), float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def main() -> None:
  with jax.enable_x64(True):
    print("lambda  |local - full| / |full|  cosine    (median of 20 success tables and policies, lowest, highest)")
    for bonus in 0.0, 0.2, 0.4:
      tasks = [Task(seed=seed) for seed in range(20)]
      figures = np.array([distance(task.local_gradient(bonus), task.full_gradient(bonus)) for task in tasks])
      show = lambda x: f"{np.median(x):.2f} [{x.min():.2f}, {x.max():.2f}]"
      print(f"{bonus:6.1f}  {show(figures[:, 0]):23}  {show(figures[:, 1])}")


if __name__ == "__main__":
  main()
