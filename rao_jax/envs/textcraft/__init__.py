"""TextCraft-Synth: craft an item out of raw material by looking recipes up, one level at a time."""

from rao_jax.envs.textcraft.env import TextCraft, TextCraftGoal
from rao_jax.envs.textcraft.tasks import make_tasks, sample_task
from rao_jax.envs.textcraft.world import Recipe, World

__all__ = ["Recipe", "TextCraft", "TextCraftGoal", "World", "make_tasks", "sample_task"]
