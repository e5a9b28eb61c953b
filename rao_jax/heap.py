"""What a process that computes on its CPU does with memory that a program has given back: keeps it for the next one."""

import ctypes

import jax

# Options of mallopt(3), by the numbers of malloc.h: no array is mapped by itself, nothing goes back to the system.
M_MMAP_MAX, M_TRIM_THRESHOLD = -4, -1


def keep_memory() -> None:
  """Keeps freed memory in this process, if it computes on its CPU and its C library is glibc; of use with one device.

  A program's temporary arrays are allocated at every call. Given back to the system, each of their pages is cleared
  again at the next call, a fifth of the time of an update (docs/performance.md).

  To be called before anything touches a device. From then on a program of one device runs in the thread that calls it,
  hence in the main heap, as other threads' heaps map whatever is large.
  """
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; other libraries have none
  if mallopt and jax.default_backend() == "cpu":
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
