"""One large file from two mirrors, of which one is killed half-way: hubcache against its own undisturbed pull.

Every connection is limited, and each mirror alone takes all of them, so what a kill costs is not bandwidth. The bytes
are counted where they are sent, so those on their way to a pull that has stopped reading are counted, too; of a killed
mirror, the last piece of each connection (a fiftieth of a second's worth) may be missing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.bench import measure
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.measure import HUBCACHE, ROOT, Contender, Run, Target
from tests.bench.mirror import counted
from tests.bench.two_mirrors import write_mirrors

MORE_SECONDS = 5.0
MORE_BYTES = 0.05


@dataclass(frozen=True, slots=True)
class Pulled:
    """What one pull had from the two mirrors: bytes sent by each, and whether the file's digest is right."""

    sent: tuple[int, ...]
    is_right: bool


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=3)
    options.add_argument("--size", type=int, default=1 << 29, help="bytes of the file")
    options.add_argument("--rate", type=int, default=8_000_000, help="bytes per second of each connection")
    options.add_argument("--connections", type=int, default=16, help="at once to each mirror")
    arguments = options.parse_args()
    pulled: dict[str, list[Pulled]] = {"undisturbed": [], "killed": []}
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        digest = digest_of(place / "repo" / FILE)
        contenders: dict[str, Contender] = {
            "undisturbed": lambda home: pull(
                home, place / "repo", arguments, pulled["undisturbed"], digest, kill=False
            ),
            "killed": lambda home: pull(home, place / "repo", arguments, pulled["killed"], digest, kill=True),
        }
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
    tell(arguments, measured, pulled)


def pull(
    home: Path, repo: Path, arguments: argparse.Namespace, pulled: list[Pulled], digest: str, *, kill: bool
) -> Run:
    """Pull from two new mirrors; `kill` ends the first of them when half of the file was sent."""
    counts = [home / f"sent{at}" for at in range(2)]
    with ExitStack() as stack:
        served = [stack.enter_context(mirror(repo, arguments.rate, count)) for count in counts]
        urls = [url for url, _ in served]
        if kill:
            stack.enter_context(killed_at(served[0][1], counts, arguments.size // 2))
        book = write_mirrors(home, urls, arguments.connections)
        measured = measure.fetch([HUBCACHE, "pull", REPO], home, urls[0], files=1, size=arguments.size, mirrors=book)
        if kill and served[0][1].poll() is None:
            raise measure.CommandFailed("the pull ended before its mirror was killed")
    [file] = home.glob(f"hub/models--*/snapshots/*/{FILE}")
    pulled.append(Pulled(tuple(map(counted, counts)), digest_of(file) == digest))
    return measured


@contextmanager
def mirror(repo: Path, rate: int, count: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a mirror; give its address and its process, which may be killed."""
    command = ["-m", "tests.bench.mirror", "--dir", str(repo), "--repo", REPO, "--rate", str(rate)]
    process = subprocess.Popen(
        [sys.executable, *command, "--count", str(count)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip(), process
    finally:
        process.kill()
        process.wait(10)
        process.stdout.close()


@contextmanager
def killed_at(process: subprocess.Popen[str], counts: list[Path], size: int) -> Iterator[None]:
    """Kill the process as soon as so many bytes were sent by all."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if sum(map(counted, counts)) >= size:
                os.kill(process.pid, signal.SIGKILL)
                return
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def digest_of(file: Path) -> str:
    """Return the file's sha256."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], pulled: dict[str, list[Pulled]]) -> None:
    """Print the line; bytes sent beyond the file's size are those that nobody read, and those sent twice."""
    more = measure.wall(measured["killed"]) - measure.wall(measured["undisturbed"])
    compared = {"wall_to_undisturbed": measure.wall(measured["killed"]) / measure.wall(measured["undisturbed"])}
    surplus = statistics.median(sum(each.sent) - arguments.size for each in pulled["killed"])
    sizes = {
        "size_bytes": arguments.size,
        "limit_bytes_per_s": arguments.rate,
        "connections": arguments.connections,
        "runs": arguments.runs,
        "more_s": round(more, 3),
        "sent_bytes": {name: [each.sent for each in all_of] for name, all_of in pulled.items()},
    }
    targets = {
        "more_s": Target(more, MORE_SECONDS),
        "more_bytes_of_size": Target(surplus / arguments.size, MORE_BYTES),
        "wrong_digests": Target(sum(not each.is_right for all_of in pulled.values() for each in all_of), 0),
    }
    measure.report("killed_mirror", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
