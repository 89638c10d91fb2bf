"""One setting of the C library's allocator, without which a training step on a CPU waits for it."""

import ctypes

# mallopt's parameters, from glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4


def keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next step, instead of giving it back.

    A step's tensors are freed and allocated again dozens of times a second. By default glibc
    returns them to the system each time, which then hands out zeroed pages one fault at a time: a
    compiled student runs at two thirds of its speed. Other C libraries are left as they are.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # no C library, or one without mallopt
        return
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(M_MMAP_THRESHOLD, 2**25)  # the largest that glibc accepts
    mallopt(M_MMAP_MAX, 0)  # and what is larger, such as 64 images of 224 pixels, is kept as well
