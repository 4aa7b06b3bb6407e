"""Which files the processes of this machine have open or mapped, as far as /proc shows them; nothing is stopped."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

PROC = "/proc"

Inode = tuple[int, int]
"""Device and inode: names differ between mount namespaces, and a name may be gone."""


@dataclass(frozen=True, slots=True)
class OpenFiles:
    """The process of each open file; `note` says what could not be seen, "" for nothing."""

    by_inode: Mapping[Inode, int] = field(default_factory=dict)
    note: str = ""

    def busy(self, status: os.stat_result) -> str:
        """Say who has the file open, "" for nobody."""
        pid = self.by_inode.get((status.st_dev, status.st_ino))
        return "" if pid is None else f"in use by process {pid}"


def open_files(root: str) -> OpenFiles:
    """Look at every process; maps are read for what lies below `root`."""
    found: dict[Inode, int] = {}
    try:
        processes = [int(name) for name in os.listdir(PROC) if name.isdigit()]
    except OSError:
        processes = []
    if not processes:
        return OpenFiles(note="this system does not show what processes have open")
    unseen = 0
    for pid in processes:
        try:
            _add_descriptors(pid, found)
            _add_maps(pid, os.path.realpath(root), found)
        except (PermissionError, NotADirectoryError):
            unseen += 1
        except OSError:
            continue  # it has ended meanwhile
    count = f"{unseen} process" + ("" if unseen == 1 else "es")
    return OpenFiles(found, f"what {count} may have open could not be seen" if unseen else "")


def _add_descriptors(pid: int, found: dict[Inode, int]) -> None:
    folder = f"{PROC}/{pid}/fd"
    for name in os.listdir(folder):
        with suppress(FileNotFoundError):
            status = os.stat(f"{folder}/{name}")
            if stat.S_ISREG(status.st_mode):
                found.setdefault((status.st_dev, status.st_ino), pid)


def _add_maps(pid: int, root: str, found: dict[Inode, int]) -> None:
    seen = set()
    with open(f"{PROC}/{pid}/maps", "rb") as file:
        for line in file:
            parts = line.split(maxsplit=5)
            if len(parts) == 6 and parts[5].startswith(b"/"):
                seen.add((parts[3], parts[4], parts[5].rstrip(b"\n")))
    for device, inode, path in seen:
        major, _, minor = device.partition(b":")
        found.setdefault((os.makedev(int(major, 16), int(minor, 16)), int(inode)), pid)
        # Some file systems show another device in maps than stat does; the name settles it.
        if path.startswith(os.fsencode(root)):
            with suppress(OSError):
                status = os.stat(path)
                found.setdefault((status.st_dev, status.st_ino), pid)
