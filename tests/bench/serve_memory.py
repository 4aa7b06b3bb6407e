"""The server's peak memory while many clients read slowly, half of them from files that are still being fetched.

Run once with small and once with large files, since neither may show. No client gets to its end: all leave together
while they are being served. The files are sparse, so a disk has to hold only what was fetched.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from tests.bench import measure, serving
from tests.bench.big_file import REPO
from tests.bench.measure import CommandFailed, Contender, Run, Target
from tests.bench.serving import Taken

PEAK_RSS = 250 << 20
WARM = "bench/warm"
FILE = "model.safetensors"


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=1)
    options.add_argument("--sizes", type=int, nargs="+", default=[64 << 20, 2 << 30], help="bytes of the files")
    options.add_argument("--clients", type=int, default=64, help="half of them on one warm file")
    options.add_argument("--cold", type=int, default=8, help="files that the other half makes the server fetch")
    options.add_argument("--seconds", type=float, default=15.0, help="how long the clients read")
    options.add_argument("--client-rate", type=int, default=1_000_000, help="bytes per second of each client")
    options.add_argument("--rate", type=int, default=300_000_000, help="bytes per second of upstream's line")
    arguments = options.parse_args()
    with measure.scratch(arguments.dir) as place:
        contenders = {str(size): contender(size, arguments) for size in arguments.sizes}
        measured = measure.alternate(contenders, runs=arguments.runs, place=place)
    tell(arguments, measured)


def contender(size: int, arguments: argparse.Namespace) -> Contender:
    """Return the measurement with files of one size."""
    return lambda folder: held(folder, size, arguments)


def held(folder: Path, size: int, arguments: argparse.Namespace) -> Run:
    """Serve warm and cold files of one size to slow clients.

    Raises:
        CommandFailed: a client was at its end, or had nothing.
    """
    for at in range(arguments.cold):
        write_sparse(folder / "cold" / cold_name(at), size)
    write_sparse(folder / "warm" / FILE, size)
    serving.lay_out_folder(folder / "hub", WARM, folder / "warm")
    repos = ["--repo", REPO, str(folder / "cold"), "--repo", WARM, str(folder / "warm")]
    upstream = ["tests.bench.line", *repos, "--rate", str(arguments.rate), "--tally", str(folder / "tally")]
    with measure.served(upstream) as endpoint, serving.hubcache(folder, endpoint) as peer:
        before = peer.cpu
        options = {"rate": arguments.client_rate, "hold": arguments.seconds, "clients": arguments.clients}
        taken = serving.drain(addresses(peer.endpoint, arguments.cold), **options)
        check_held(taken)
        return serving.cost(peer, before, taken.wall)


def write_sparse(file: Path, size: int) -> None:
    """Write a file of zeros that begins with its own name, so that no two have one digest."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(file.name)
    os.truncate(file, size)


def cold_name(at: int) -> str:
    """Name a cold file."""
    return f"cold{at}.safetensors"


def addresses(endpoint: str, cold: int) -> list[str]:
    """Return the files that the clients take in turns: a cold one, the warm one, the next cold one, the warm one."""
    cold_urls = [f"{endpoint}/{REPO}/resolve/main/{cold_name(at)}" for at in range(cold)]
    return [each for url in cold_urls for each in (url, f"{endpoint}/{WARM}/resolve/main/{FILE}")]


def check_held(taken: Taken) -> None:
    """Refuse a run whose transfers were not all in flight."""
    if any(client.is_whole or not client.received for client in taken.clients):
        raise CommandFailed("not every transfer was in flight to the end")


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line: one target for each size."""
    peaks = {size: max(run.rss for run in runs) for size, runs in measured.items()}
    small, large = str(min(arguments.sizes)), str(max(arguments.sizes))
    sizes = {
        "sizes_bytes": arguments.sizes,
        "clients": arguments.clients,
        "cold_files": arguments.cold,
        "client_bytes_per_s": arguments.client_rate,
        "line_bytes_per_s": arguments.rate,
        "runs": arguments.runs,
    }
    targets = {f"peak_rss_bytes_{size}": Target(peak, PEAK_RSS) for size, peak in peaks.items()}
    compared = {"peak_rss_large_to_small": peaks[large] / peaks[small]}
    measure.report("serve_memory", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
