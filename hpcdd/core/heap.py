"""Memory that a training step frees stays with the process, in large pages: the next step needs as much again.

By default glibc returns every freed block of a few hundred KiB to the kernel, and gets it anew for the next tensor,
page by page and zeroed. On a CPU that is 15% to 41% of a training step's time (``docs/measurements.md``).
"""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_TRIM_THRESHOLD, _MMAP_MAX = 128 << 10, 65536  # its defaults
_MADV_HUGEPAGE = 14
_HUGE = 2 << 20


def keep(reserve: int) -> bool:
    """From now on what is freed stays in the heap, whose next ``reserve`` bytes are in large pages.

    Until they are used, only addresses are reserved.

    Args:
        reserve: bytes.

    Returns:
        Whether the C library and the kernel do so; where they don't, steps take longer, and nothing else changes.
    """
    libc = ctypes.CDLL(None)
    if not all(hasattr(libc, name) for name in ("mallopt", "malloc", "free", "madvise")):  # not glibc
        return False
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
    libc.free.restype, libc.free.argtypes = None, (ctypes.c_void_p,)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if not (libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, -1)):
        return False
    block = libc.malloc(reserve)
    if not block:
        return False
    start = -(-block // _HUGE) * _HUGE
    advised = bool(libc.madvise(start, max(0, block + reserve - start) // _HUGE * _HUGE, _MADV_HUGEPAGE) == 0)
    libc.free(block)
    return advised


def release() -> None:
    """Ends what :func:`keep` has begun, and gives what is free back to the kernel: for programs that continue."""
    libc = ctypes.CDLL(None)
    if all(hasattr(libc, name) for name in ("mallopt", "malloc_trim")):
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
        libc.malloc_trim(ctypes.c_size_t(0))
