"""How the process keeps its memory once it serves: Python's collector and the C library's allocator, told what they
cannot know. Kept for the promise of memory: 32 uploads of 50 MB at once raise all five services by 26 MB with it and by
32 without, which is the limit. A feed of 16 videos takes 160 µs of the processor with it, 205 without; its median time
and the uploads' processor time are the same. To remove it, remove its two calls.
"""

import contextlib
import ctypes
import gc

# A walk through what is young, once in so many objects instead of 700.
YOUNG_OBJECTS = 10_000
# Pieces of bodies come and go without end. By default glibc gives each of them back to the system, which clears every
# page of the next one anew; so what is freed stays, up to a limit.
LARGEST_PIECE = 4 * 1_048_576
MOST_KEPT = 8 * 1_048_576
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


def settle() -> None:
    """Call it when everything is open. What there is by now stays: no collection walks through it any more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)


def keep_pieces() -> None:
    """For a service through which bodies go. (Of the 19 MiB for a password glibc takes better care by itself.)"""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_THRESHOLD, LARGEST_PIECE)
        libc.mallopt(M_TRIM_THRESHOLD, MOST_KEPT)
