"""Values that leave the sandbox are bounded and plain."""

from rao_jax.rollout.values import plain


def test_plain_cuts_by_size_and_sorts_sets():
  assert plain("abcdef", 36) == "abcd..."
  assert plain([1, 2, 3], 80) == [1, 2, "..."]  # 32 for the list and for each number before the room is gone
  assert plain({3, 1, 2}) == [1, 2, 3]
  assert plain({"a": (1, {"b"})}) == {"a": (1, ["b"])}
  assert plain("\ud800") == "?"
  assert type(plain(type("Text", (str,), {})("\u00e9"))) is str
