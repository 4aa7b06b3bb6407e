"""Start-up: pulls of what is cached already, and --help, whole processes; hardly anything else is done in them."""

from __future__ import annotations

import argparse
from pathlib import Path

from tests.bench import measure
from tests.bench.measure import HF, HUBCACHE, Contender, Run, Target
from tests.support.httpd import Body
from tests.support.loophub import LoopHub

REPO = "bench/warm"
PULL_SECONDS = 0.25
HELP_SECONDS = 0.15
WHATS = ("branch", "commit", "help")
FILES: dict[str, Body] = {
    "config.json": b'{"model_type": "bert"}',
    "tokenizer.json": b"{}" * 5000,
    "tokenizer_config.json": b"{}",
    "vocab.txt": b"word\n" * 2000,
    "README.md": b"# warm\n",
    "model.safetensors": bytes(range(256)) * 4096,
}


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = measure.parser(__doc__, runs=11).parse_args()
    hub = LoopHub()
    commit = hub.add_repo(REPO, FILES)
    with hub, measure.scratch(arguments.dir) as home:
        contenders = commands(home, hub.endpoint, commit)
        for contender in contenders.values():
            contender(home)
        asked = {name: requests(hub, contenders[name], home) for name in contenders}
        measured = measure.alternate(contenders, runs=arguments.runs, place=arguments.dir)
    tell(arguments, measured, asked)


def commands(home: Path, endpoint: str, commit: str) -> dict[str, Contender]:
    """Return what is measured; every client keeps its own cache between the runs."""
    ours, theirs = (measure.environment(home / name, endpoint) for name in ("hubcache", "hf"))
    return {
        "hubcache_branch": lambda _: measure.run([HUBCACHE, "pull", REPO], ours),
        "hf_branch": lambda _: measure.run([HF, "download", REPO], theirs),
        "hubcache_commit": lambda _: measure.run([HUBCACHE, "pull", f"{REPO}@{commit}"], ours),
        "hf_commit": lambda _: measure.run([HF, "download", REPO, "--revision", commit], theirs),
        "hubcache_help": lambda _: measure.run([HUBCACHE, "--help"], ours),
        "hf_help": lambda _: measure.run([HF, "--help"], theirs),
    }


def requests(hub: LoopHub, contender: Contender, home: Path) -> int:
    """Count what one run asks of the hub."""
    hub.clear()
    contender(home)
    return len(hub.requests)


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]], asked: dict[str, int]) -> None:
    """Print the line; the targets are medians, and the requests a warm pull makes."""
    walls = {name: measure.wall(runs) for name, runs in measured.items()}
    compared = {f"{what}_to_hf": walls[f"hubcache_{what}"] / walls[f"hf_{what}"] for what in WHATS}
    targets = {
        "branch_s": Target(walls["hubcache_branch"], PULL_SECONDS),
        "commit_s": Target(walls["hubcache_commit"], PULL_SECONDS),
        "help_s": Target(walls["hubcache_help"], HELP_SECONDS),
        "branch_requests": Target(asked["hubcache_branch"], 1),
        "commit_requests": Target(asked["hubcache_commit"], 0),
    }
    sizes = {"files": len(FILES), "runs": arguments.runs, "requests": asked}
    measure.report("warm", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


if __name__ == "__main__":
    main()
