"""Files that are there: hubcache serve, nginx and bare aiohttp over the very same inode, and olah from its own store.

One client takes one large file, then many take small ones, each over a connection of its own. The client drops what
comes (drain.py), so the servers are compared, not what a client does with bytes; all CPU times are the servers'.
"""

from __future__ import annotations

import argparse
import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from tests.bench import measure, serving
from tests.bench.big_file import FILE, REPO, write_random
from tests.bench.measure import Contender, Run, Target
from tests.bench.serving import Peer

RATE_TO_NGINX = 0.9
CPU_TO_NGINX = 1.3
FILES = 4
OLAH_SHARE = 8

Address = Callable[[str], str]


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=7)
    options.add_argument("--size", type=int, default=2 << 30, help="bytes of the large file")
    options.add_argument("--small-size", type=int, default=4 << 20, help="bytes of each small file")
    options.add_argument("--clients", type=int, default=16, help="for the small files")
    options.add_argument("--requests", type=int, default=32, help="small files that each client takes in a run")
    options.add_argument("--no-olah", action="store_true", help="leave olah out, which has to be installed")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        write_random(place / "repo" / FILE, arguments.size)
        for at in range(FILES):
            write_random(place / "small" / f"{at}" / FILE, arguments.small_size)
            (place / "small" / f"{at}" / FILE).rename(place / "repo" / small_name(at))
        measured = measure_all(place, arguments)
    tell(arguments, measured)


def small_name(at: int) -> str:
    """Name a small file; a hub keeps it as it keeps large ones."""
    return f"small{at}.bin"


def measure_all(place: Path, arguments: argparse.Namespace) -> dict[str, list[Run]]:
    """Start the servers, have each prove what it serves, and let them take turns; olah, being slow, gets one."""
    with ExitStack() as stack:
        peers = servers(place, stack, has_olah=not arguments.no_olah)
        digests = {path.name: digest_of(path) for path in (place / "repo").iterdir()}
        for _, address in peers.values():
            for name, digest in digests.items():
                serving.check_served(address(name), (place / "repo" / name).stat().st_size, digest)
        contenders: dict[str, Contender] = {}
        for name, (peer, address) in peers.items():
            contenders |= downloads(name, peer, address, arguments)
        slow = {name: contenders.pop(name) for name in list(contenders) if name.startswith("olah")}
        measure.alternate(contenders, runs=1, place=place)
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
        return measured | measure.alternate(slow, runs=1, place=place)


def servers(place: Path, stack: ExitStack, *, has_olah: bool) -> dict[str, tuple[Peer, Address]]:
    """Start all servers; each with the way to a file of it."""
    commit = serving.lay_out_folder(place / "hub", REPO, place / "repo")
    resolve = f"/{REPO}/resolve/{commit}/"
    peers: dict[str, tuple[Peer, Address]] = {}
    ours = stack.enter_context(serving.hubcache(place))
    peers["hubcache"] = (ours, under(ours.endpoint + resolve))
    if serving.nginx_command():
        nginx = stack.enter_context(serving.nginx(place, place / "repo"))
        peers["nginx"] = (nginx, under(f"{nginx.endpoint}/"))
    bare = stack.enter_context(serving.bare(place / "repo"))
    peers["aiohttp"] = (bare, under(f"{bare.endpoint}/file/"))
    if has_olah:
        command = ["tests.support.loophub", "--dir", str(place / "repo"), "--repo", REPO]
        upstream = stack.enter_context(measure.served(command))
        olah = stack.enter_context(serving.olah(place / "olah", upstream, f"{resolve}{FILE}"))
        peers["olah"] = (olah, under(olah.endpoint + resolve))
    return peers


def under(base: str) -> Address:
    """Return how to address the files below a URL."""
    return lambda name: base + name


def digest_of(file: Path) -> str:
    """Return the file's sha256."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def downloads(name: str, peer: Peer, address: Address, arguments: argparse.Namespace) -> dict[str, Contender]:
    """Return the two measurements of a server."""
    large, small = [address(FILE)], [address(small_name(at)) for at in range(FILES)]
    clients, requests = arguments.clients, requests_of(name, arguments)
    total = clients * requests * arguments.small_size

    def take(urls: list[str], size: int, **options: float) -> Run:
        before = peer.cpu
        return serving.cost(peer, before, serving.whole(serving.drain(urls, **options), size).wall)

    def take_small() -> Run:
        used, share = take(small, total, clients=clients, requests=requests), arguments.requests / requests
        return replace(used, wall=used.wall * share, cpu=used.cpu * share)

    return {f"{name}_large": lambda _: take(large, arguments.size), f"{name}_small": lambda _: take_small()}


def requests_of(name: str, arguments: argparse.Namespace) -> int:
    """Return how many small files each client takes; olah's share is a part, and its times are told as for all."""
    return max(1, arguments.requests // OLAH_SHARE) if name == "olah" else int(arguments.requests)


def tell(arguments: argparse.Namespace, measured: Mapping[str, Sequence[Run]]) -> None:
    """Print the line; a rate so many times another's is a wall time so many times smaller."""
    runs = {name: list(those) for name, those in measured.items()}
    compared = {
        f"{kind}_{what}_to_{peer}": of(runs[f"hubcache_{kind}"]) / of(runs[f"{peer}_{kind}"])
        for kind in ("large", "small")
        for peer in ("nginx", "aiohttp", "olah")
        if f"{peer}_{kind}" in runs
        for what, of in (("wall", measure.wall), ("cpu", mean_cpu))
    }
    sent = {"large": arguments.size, "small": arguments.clients * arguments.requests * arguments.small_size}
    sizes = {
        "size_bytes": arguments.size,
        "small_size_bytes": arguments.small_size,
        "clients": arguments.clients,
        "requests": arguments.requests,
        "runs": arguments.runs,
        "bytes_per_s": {
            name: round(statistics.median(sent[name.rpartition("_")[2]] / run.wall for run in those))
            for name, those in runs.items()
        },
    }
    limits = {
        "large_wall_to_nginx": 1 / RATE_TO_NGINX,
        "large_cpu_to_nginx": CPU_TO_NGINX,
        "small_wall_to_nginx": 1 / RATE_TO_NGINX,
    }
    targets = {name: Target(compared[name], limit) for name, limit in limits.items() if name in compared}
    measure.report("serve_warm", sizes, runs, compared=compared, targets=targets, place=arguments.dir)


def mean_cpu(runs: Sequence[Run]) -> float:
    """Average CPU times: they are told in hundredths, which a median would not smooth. Never 0."""
    return max(statistics.fmean(run.cpu for run in runs), 1 / serving.TICKS / len(runs))


if __name__ == "__main__":
    main()
