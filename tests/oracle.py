"""Slow plain-Python twins of credit and losses, written from the paper's sentences: lists and loops, no arrays."""

import math


def node_rewards(success, parent, valid, delegation_bonus, leaf_scale=False, bonus="rate"):
  rewards = []
  for n in range(len(success)):
    if not valid[n]:
      rewards.append(0.0)
      continue
    children = [c for c in range(len(success)) if valid[c] and parent[c] == n]
    gained = sum(success[c] for c in children)
    if children and bonus == "rate":
      gained /= len(children)
    if leaf_scale and not children:
      gained = success[n]
    rewards.append(success[n] + delegation_bonus * gained)
  return rewards


def leave_one_out(root_reward, group, valid):
  """Baseline per tree, None where a valid tree has no other valid tree in its group, 0 at invalid trees."""
  baselines = []
  for g in range(len(root_reward)):
    others = [root_reward[h] for h in range(len(root_reward)) if h != g and valid[h] and group[h] == group[g]]
    baselines.append(0.0 if not valid[g] else sum(others) / len(others) if others else None)
  return baselines


def group_mean(root_reward, group, valid):
  baselines = []
  for g in range(len(root_reward)):
    members = [root_reward[h] for h in range(len(root_reward)) if valid[h] and group[h] == group[g]]
    baselines.append(0.0 if not valid[g] else sum(members) / len(members) if len(members) > 1 else None)
  return baselines


def advantages(reward, tree, baseline, valid):
  return [
    reward[n] - baseline[tree[n]] if valid[n] and baseline[tree[n]] is not None else 0.0 for n in range(len(reward))
  ]


def depth_weights(depth, valid, max_depth, cap=None):
  count = {}
  for d, v in zip(depth, valid):
    if v and d <= max_depth:
      count[d] = count.get(d, 0) + 1
  total = sum(count.values())
  # Water filling: depths in order of rarity; each takes an equal share of what is left, or what its cap allows.
  share, left = {}, float(total)
  for i, d in enumerate(sorted(count, key=lambda d: count[d])):
    equal = left / (len(count) - i)
    share[d] = equal if cap is None else min(equal, cap * count[d])
    left -= share[d]
  return [share[d] / count[d] if v and d in count else 0.0 for d, v in zip(depth, valid)]


def credit(
  trees,
  max_depth,
  delegation_bonus=0.0,
  baseline="leave_one_out",
  sparse=False,
  leaf_scale=False,
  bonus="rate",
  depth_weighting=True,
  depth_weight_cap=None,
):
  """(reward, advantage, weight) per node, over the nodes of TreeRecords in order."""
  success, parent, depth, tree, valid, trained, roots = [], [], [], [], [], [], []
  for t, record in enumerate(trees):
    first = len(success)
    root_success = 0.0
    for node in record.nodes:
      if node.parent < 0:
        roots.append(len(success))
        root_success = node.success
      parent.append(-1 if node.parent < 0 else first + node.parent)
      depth.append(node.depth)
      tree.append(t)
      valid.append(record.valid)
      trained.append(record.valid and any(node.is_action))
      success.append(node.success)
    for n in range(first, len(success)):
      if sparse:
        success[n] = root_success
      if not any(record.nodes[n - first].is_action):
        success[n] = 0.0
  reward = node_rewards(success, parent, valid, delegation_bonus, leaf_scale, bonus)
  rule = {"leave_one_out": leave_one_out, "group_mean": group_mean}[baseline]
  baselines = rule([reward[r] for r in roots], [t.group for t in trees], [t.valid for t in trees])
  advantage = advantages(reward, tree, baselines, trained)
  weight = (
    depth_weights(depth, trained, max_depth, depth_weight_cap) if depth_weighting else [float(t) for t in trained]
  )
  return reward, advantage, weight


def token_loss(surrogate, logp, behaviour_logp, advantage, weight, low=None, high=None):
  """Loss of one token; low and high are the bounds of the ratio itself."""
  ratio = math.exp(logp - behaviour_logp)
  if surrogate == "reinforce":
    return -weight * advantage * logp
  clipped = min(max(ratio, low), high)
  if surrogate == "ppo":
    return -weight * min(ratio * advantage, clipped * advantage)
  return -clipped * weight * advantage * logp


def token_gradient(surrogate, logp, behaviour_logp, advantage, weight, low=None, high=None):
  """Derivative of the loss by logp."""
  ratio = math.exp(logp - behaviour_logp)
  if surrogate == "reinforce":
    return -weight * advantage
  if surrogate == "ppo":
    cut = ratio > high if advantage > 0 else ratio < low
    return 0.0 if cut else -weight * advantage * ratio
  return -min(max(ratio, low), high) * weight * advantage


def log_softmax(logits, allowed, temperature):
  """Log-probabilities; -inf where not allowed."""
  scaled = [x / temperature if a else -math.inf for x, a in zip(logits, allowed)]
  top = max(scaled)
  total = math.log(sum(math.exp(x - top) for x in scaled)) + top
  return [x - total for x in scaled]
