"""Pages of a mapped file given back once they are read; it maps nothing itself."""

from __future__ import annotations

import ctypes
import mmap
import sys


def drop_pages(address: int, size: int) -> None:
    """Let the system take back the pages up to those bytes' end; elsewhere than on Linux, do nothing.

    For memory that is a file's and unchanged only: what is read again comes from the file again, and what was
    written would be gone.
    """
    if not sys.platform.startswith("linux"):
        return
    # The last page is still to be read by whoever goes on; the first was so before, and is done with now.
    start = address // mmap.PAGESIZE * mmap.PAGESIZE
    stop = (address + size) // mmap.PAGESIZE * mmap.PAGESIZE
    if stop > start:
        madvise = ctypes.CDLL(None).madvise
        madvise(ctypes.c_void_p(start), ctypes.c_size_t(stop - start), mmap.MADV_DONTNEED)
