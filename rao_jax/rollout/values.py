"""What crosses between the sandbox and the host: bounded plain values."""

from typing import Any

import pydantic_monty as monty


def plain(value: Any, room: int | None = None) -> Any:
  """A bounded copy of `value` from None, bool, int, float, str, bytes, list, tuple and dict.

  A value from the sandbox may hold one list twice at each of forty levels, an integer that Python refuses to print, or
  an object with a random id. A set becomes a sorted list, as its order on the host differs from process to process;
  what has no plain form becomes its repr. A range is a text on either way: the sandbox hands it out as its repr, in no
  way different from a string of those characters, and takes none in; only code of a cell can make one.

  Args:
    value: anything.
    room: characters at most, an item counts as 32; None for no bound. What is beyond is cut.
  """
  return _plain(value, [float("inf") if room is None else room], 0)


def _plain(value, room, depth):
  room[0] -= 32
  if value is None or isinstance(value, bool | float):
    return value
  if isinstance(value, int):
    return int(value) if value.bit_length() < 14000 else f"<int of {value.bit_length()} bits>"
  if isinstance(value, str | bytes):
    if len(value) > room[0]:
      value = value[: max(int(room[0]), 0)] + ("..." if isinstance(value, str) else b"...")
    room[0] -= len(value)
    if type(value) is bytes or (type(value) is str and value.isascii()):
      return value
    # Not a subclass, and no lone surrogate, which could not enter the sandbox.
    return bytes(value) if isinstance(value, bytes) else value.encode("utf-8", "replace").decode()
  if isinstance(value, list | tuple | set | frozenset | dict | monty.MontyClassProxy):
    if room[0] <= 0 or depth > 100:
      return "..."
    if isinstance(value, monty.MontyClassProxy):
      fields = ", ".join(f"{name}={_plain(item, room, depth + 1)!r}" for name, item in value.attributes.items())
      return _plain(f"{value.name}({fields})", room, depth)
    if isinstance(value, dict):
      copy = {}
      for key, item in value.items():
        if room[0] <= 0:
          copy["..."] = "..."
          break
        key = _plain(key, room, depth + 1)
        try:
          hash(key)
        except TypeError:  # it was a frozenset, or a tuple with one
          key = repr(key)
        copy[key] = _plain(item, room, depth + 1)
      return copy
    items = []
    for item in value:
      if room[0] <= 0:
        items.append("...")
        break
      items.append(_plain(item, room, depth + 1))
    if isinstance(value, set | frozenset):
      return sorted(items, key=repr) if room[0] > 0 else f"<set of {len(value)} items>"
    return tuple(items) if isinstance(value, tuple) else items
  return _plain(repr(value), room, depth)
