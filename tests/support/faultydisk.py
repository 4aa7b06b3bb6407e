"""A disk whose Nth change fails: every way the library changes files goes by here, in all threads.

What is wrapped is the os module and open() for writing; reads are never touched.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import shutil
import threading
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self
from unittest import mock

WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
CHANGES = ("replace", "rename", "symlink", "link", "mkdir", "rmdir", "unlink", "remove", "ftruncate", "truncate",
           "fsync", "utime", "chmod", "fchmod")  # fmt: skip


class Killed(BaseException):
    """The process was killed here; nothing after it may reach the disk."""


class FaultyDisk:
    """A context in which the `at`-th change below `folder` fails by OSError(`error`), or kills where error is None.

    A failing write has done half of itself first. `changes` counts what was tried, `failed` says whether it came
    to that.
    """

    def __init__(self, folder: Path, at: int, error: int | None) -> None:
        self.changes = 0
        self.failed = False
        self._folder = str(folder)
        self._at = at
        self._error = error
        self._lock = threading.Lock()
        self._real = {name: getattr(os, name) for name in (*CHANGES, "open", "write", "pwrite")}
        self._open = io.open
        self._copyfile = shutil.copyfile
        self._patches = ExitStack()
        self._ended = False

    def __enter__(self) -> Self:
        for name in CHANGES:
            self._patch(os, name, self._changing(self._real[name]))
        self._patch(os, "open", self._os_open)
        self._patch(os, "write", self._writing(self._real["write"]))
        self._patch(os, "pwrite", self._writing(self._real["pwrite"]))
        self._patch(io, "open", self._io_open)
        self._patch(builtins, "open", self._io_open)
        self._patch(shutil, "copyfile", self._changing(self._copyfile))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()
        # A thread that outlives the kill may hold a wrapped function still.
        self._ended = True

    def _patch(self, module: object, name: str, function: Callable[..., Any]) -> None:
        self._patches.enter_context(mock.patch.object(module, name, function))

    def _count(self) -> bool:
        """Count a change; tell whether it is the one that fails, or raise if it is a later one of a killed process."""
        with self._lock:
            if self._ended or (self.failed and self._error is None):
                raise Killed
            self.changes += 1
            if self.changes != self._at:
                return False
            self.failed = True
            return True

    def _fail(self) -> BaseException:
        return Killed() if self._error is None else OSError(self._error, os.strerror(self._error))

    def _changing(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def changed(*arguments: Any, **keywords: Any) -> Any:
            if self._count():
                raise self._fail()
            return real(*arguments, **keywords)

        return changed

    def _writing(self, real: Callable[..., int]) -> Callable[..., int]:
        def written(fd: int, chunk: bytes, *rest: int) -> int:
            if self._is_ours(fd) and self._count():
                real(fd, bytes(chunk)[: len(chunk) // 2], *rest)
                raise self._fail()
            return real(fd, chunk, *rest)

        return written

    def _is_ours(self, fd: int) -> bool:
        try:
            return os.readlink(f"/proc/self/fd/{fd}").startswith(self._folder)
        except OSError:
            return False

    def _os_open(self, path: Any, flags: int, *rest: Any, **keywords: Any) -> int:
        if flags & WRITING and self._count():
            raise self._fail()
        return int(self._real["open"](path, flags, *rest, **keywords))

    def _io_open(self, file: Any, mode: str = "r", *rest: Any, **keywords: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+") or not str(file).startswith(self._folder):
            return self._open(file, mode, *rest, **keywords)
        if self._count():
            raise self._fail()
        return _File(self._open(file, mode, *rest, **keywords), self)

    def write(self, file: Any, content: Any) -> int:
        """Write to an opened file, as one change."""
        if self._count():
            file.write(content[: len(content) // 2])
            file.flush()
            raise self._fail()
        return int(file.write(content))


class _File:
    """An open file whose writes are counted."""

    def __init__(self, file: Any, disk: FaultyDisk) -> None:
        self._file = file
        self._disk = disk

    def write(self, content: Any) -> int:
        return self._disk.write(self._file, content)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


FULL = errno.ENOSPC
BROKEN = errno.EIO
