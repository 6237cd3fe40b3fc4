"""Memory that is given back: large blocks of the C library's heap."""

from __future__ import annotations

import ctypes

_MMAP_THRESHOLD, _BYTES = -3, 1 << 20


def give_back() -> None:
    """Let what was freed be the system's again, also between what is in use.

    A shard is put together from thousands of small blocks, which leave holes of 50 MB behind. Does
    nothing where the C library is not glibc.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def give_back_large_blocks() -> None:
    """Let every block of a megabyte or more be the system's again as soon as it is freed.

    glibc learns from the first large block that is freed to take the next ones, up to 32 MB, from
    its heap, which shrinks from the top alone: where small blocks are made between large ones, as
    in generation, a process keeps three times the memory that it ever needed at once. Does nothing
    where the C library is another.
    """
    try:
        ctypes.CDLL(None).mallopt(_MMAP_THRESHOLD, _BYTES)
    except (OSError, AttributeError, TypeError):
        return
