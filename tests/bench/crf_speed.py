"""A CRF's training step (loss and gradients) and decoding: LinearChainCRF and pytorch-crf 0.7.2; no encoder is run.

Both work on the same ragged batch in one process and take turns, and are held to the same loss, gradients and paths
before the clock starts. On a GPU every call is waited for.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from hubcache.models.crf import LinearChainCRF
from tests.bench import measure
from tests.bench.measure import CommandFailed, Run, Target

try:
    import torchcrf
except ImportError:
    sys.exit(
        "crf_speed compares with pytorch-crf, which is not here: pip install pytorch-crf==0.7.2, or carry its wheel"
    )

AT_MOST = {"cpu": 1 / 3, "cuda": 1 / 10}
# How far the gradients of a mean over the batch may be apart: pytorch-crf adds up in the emissions' own kind.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "bfloat16": 1e-3}


class Batch(NamedTuple):
    """Emissions [batch, seq, tags] that want a gradient, tags and mask [batch, seq]."""

    emissions: Tensor
    tags: Tensor
    mask: Tensor


def main() -> None:
    """Run the benchmark and print its line."""
    options = measure.parser(__doc__, runs=15)
    options.add_argument("--device", choices=AT_MOST, default="cpu")
    options.add_argument("--threads", type=int, default=1, help="of torch, on the CPU")
    options.add_argument("--dtype", choices=TOLERANCE, default="float32", help="of the emissions")
    options.add_argument("--calls", type=int, default=5, help="calls a run")
    options.add_argument("--batch", type=int, default=32)
    options.add_argument("--seq", type=int, default=128)
    options.add_argument("--tags", type=int, default=31)
    arguments = options.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    batch = ragged(arguments)
    ours = LinearChainCRF(arguments.tags, batch_first=True).to(arguments.device)
    theirs = torchcrf.CRF(arguments.tags, batch_first=True).to(arguments.device)
    if arguments.dtype == "float64":
        ours, theirs = ours.double(), theirs.double()
    theirs.load_state_dict(ours.state_dict())
    check(ours, theirs, batch, TOLERANCE[arguments.dtype])
    tell(arguments, *measured(arguments, {"hubcache": ours, "torchcrf": theirs}, batch))


def ragged(arguments: argparse.Namespace) -> Batch:
    """Draw a batch of sequences of 1 to seq steps, the first of them full."""
    batch, seq = arguments.batch, arguments.seq
    lengths = torch.randint(1, seq + 1, (batch, 1))
    lengths[0] = seq
    kind = getattr(torch, arguments.dtype)
    emissions = torch.randn(batch, seq, arguments.tags).to(arguments.device, kind).requires_grad_()
    tags = torch.randint(0, arguments.tags, (batch, seq))
    return Batch(emissions, tags.to(arguments.device), (torch.arange(seq) < lengths).to(arguments.device))


def step(crf: Any, batch: Batch) -> list[Tensor]:
    """Return the loss and the gradients for the emissions and the parameters."""
    loss = -crf(*batch, reduction="mean")
    return [loss.detach(), *torch.autograd.grad(loss, [batch.emissions, *crf.parameters()])]


def check(ours: Any, theirs: Any, batch: Batch, tolerance: float) -> None:
    """Compare what is to be timed.

    Raises:
        CommandFailed: a loss, a gradient or a path differs.
    """
    for name, one, other in zip(
        ("loss", "emissions", "start", "end", "transitions"), step(ours, batch), step(theirs, batch), strict=True
    ):
        if not torch.allclose(one, other, rtol=1e-5 if name == "loss" else 0, atol=tolerance):
            raise CommandFailed(f"{name}: {(one - other).abs().max().item()} apart, not {tolerance}")
    if ours.decode(batch.emissions, batch.mask) != theirs.decode(batch.emissions, batch.mask):
        raise CommandFailed("the best paths differ")


def measured(
    arguments: argparse.Namespace, crfs: dict[str, Any], batch: Batch
) -> tuple[dict[str, list[Run]], dict[str, int]]:
    """Let both take turns; return their runs, and the peak bytes that one call takes of a GPU."""
    calls: dict[str, Callable[[], Any]] = {}
    for name, crf in crfs.items():
        calls[f"{name}_step"] = partial(step, crf, batch)
        calls[f"{name}_decode"] = partial(crf.decode, batch.emissions, batch.mask)
    is_cuda = arguments.device == "cuda"
    peaks = {name: peak(call) for name, call in calls.items()} if is_cuda else {}
    runs: dict[str, list[Run]] = {name: [] for name in calls}
    for _ in range(arguments.runs):
        for name, call in calls.items():
            runs[name].append(timed(call, arguments.calls, is_cuda))
    return runs, peaks


def peak(call: Callable[[], Any]) -> int:
    """Return the bytes of the GPU's memory that a call takes at most."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before)


def timed(call: Callable[[], Any], calls: int, is_cuda: bool) -> Run:
    """Call so many times, waiting for the GPU after each."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(calls):
        call()
        if is_cuda:
            torch.cuda.synchronize()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return Run(time.perf_counter() - wall, time.process_time() - cpu, rss, 0)


def tell(arguments: argparse.Namespace, runs: dict[str, list[Run]], peaks: dict[str, int]) -> None:
    """Print the line; the targets are medians of wall time, ours to pytorch-crf's."""
    compared: dict[str, float] = {}
    targets: dict[str, Target] = {}
    for what in ("step", "decode"):
        ours, theirs = runs[f"hubcache_{what}"], runs[f"torchcrf_{what}"]
        compared |= {f"{what}_{name}": ratio for name, ratio in measure.ratios(ours, theirs, "torchcrf").items()}
        targets[f"{what}_wall_to_torchcrf"] = Target(
            measure.wall(ours) / measure.wall(theirs), AT_MOST[arguments.device]
        )
    told = {name: target.told() for name, target in targets.items()}
    sizes = {
        name: getattr(arguments, name)
        for name in ("device", "threads", "dtype", "batch", "seq", "tags", "runs", "calls")
    }
    line = {
        "benchmark": "crf_speed",
        **sizes,
        "ms_per_call": {name: per_call(each, arguments.calls) for name, each in runs.items()},
        "peak_gpu_bytes": peaks,
        "measured": measure.figures(runs),
        "ratios": {name: round(ratio, 4) for name, ratio in compared.items()},
        "targets": told,
        "ok": all(target["ok"] for target in told.values()),
        "versions": {"torch": torch.__version__, "torchcrf": torchcrf.__version__, "python": platform.python_version()},
        "machine": machine(arguments.device),
    }
    print(json.dumps(line))


def per_call(runs: list[Run], calls: int) -> dict[str, float]:
    """Return the median and the least milliseconds of wall time."""
    walls = [run.wall * 1e3 / calls for run in runs]
    return {"median": round(statistics.median(walls), 3), "min": round(min(walls), 3)}


def machine(device: str) -> dict[str, Any]:
    """Name what it ran on."""
    found = {"cpus": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}
    return found | ({"gpu": torch.cuda.get_device_name()} if device == "cuda" else {})


if __name__ == "__main__":
    main()
