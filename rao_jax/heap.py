"""What a process that computes on its CPU does with memory that a program has given back: keeps it for the next one."""

import ctypes

import jax

# Options of mallopt(3), by the numbers of malloc.h: all threads share one heap, which maps no array by itself and gives
# nothing back to the system.
M_ARENA_MAX, M_MMAP_MAX, M_TRIM_THRESHOLD = -8, -4, -1


def keep_memory() -> None:
  """Keeps freed memory in this process, if it computes on its CPU and its C library is glibc.

  A program's temporary arrays are allocated at every call. Given back to the system, each of their pages is cleared
  again at the next call, a fifth of the time of an update (docs/performance.md).

  To be called before anything touches a device, and before other threads allocate. Threads have heaps of their own,
  which map whatever is large: so a program of one device runs in the thread that calls it, in the main heap; where
  several CPU devices are asked for (JAX_NUM_CPU_DEVICES), their threads share that heap, at the price of waiting for it
  when arrays are small.
  """
  mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)  # glibc's; other libraries have none
  if jax.config.jax_num_cpu_devices > 1:
    mallopt(M_ARENA_MAX, 1)  # before the devices' threads begin
  else:
    jax.config.update("jax_cpu_enable_async_dispatch", False)
  if jax.default_backend() == "cpu":
    mallopt(M_MMAP_MAX, 0)
    mallopt(M_TRIM_THRESHOLD, -1)
