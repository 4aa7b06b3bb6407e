"""Our text encoders against transformers' own of the same size and weights, in one process; it loads no checkpoint.

The adversarial loss is off: it is not transformers' work. A run is one batch (several on a GPU), a pair of runs is one
of each peer right after the other, and the ratio is the median over the pairs, so that a busy machine slows both.
"""

from __future__ import annotations

import argparse
import importlib
import json
import operator
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import transformers

from tests.bench import measure
from tests.bench.measure import CommandFailed, Run, Target

MOST = 1.03
PEERS = {"sbert": "Bert", "veco": "Roberta"}
WORDS = 30522
Measured = dict[str, list[Run]]
Step = Callable[[], None]


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = parse()
    torch.manual_seed(0)
    ours, theirs = models(arguments)
    batch = make_batch(arguments)
    check_same_logits(ours, theirs, batch)
    measured: Measured = {}
    for what, step in (("forward", forward), ("step", forward_backward)):
        contenders = {f"{arguments.family}_{what}": step(ours, batch), f"{peer(arguments)}_{what}": step(theirs, batch)}
        measured |= take_turns(contenders, arguments)
    tell(arguments, measured)


def parse() -> argparse.Namespace:
    """Read the command line."""
    options = measure.parser(__doc__, runs=15)
    options.add_argument("--family", choices=sorted(PEERS), default="sbert")
    options.add_argument("--device", default="cpu")
    options.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    options.add_argument("--layers", type=int, default=4)
    options.add_argument("--hidden", type=int, default=768, help="a multiple of 64, the size of a head")
    options.add_argument("--batch", type=int, default=8)
    options.add_argument("--length", type=int, default=128, help="tokens of a text")
    options.add_argument("--steps", type=int, help="batches of a run; 1, on a GPU 20")
    arguments = options.parse_args()
    arguments.steps = arguments.steps or (1 if arguments.device == "cpu" else 20)
    return arguments


def peer(arguments: argparse.Namespace) -> str:
    """Name transformers' family."""
    return PEERS[arguments.family].lower()


def models(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Make our classifier and transformers' with the same configuration and weights."""
    family = arguments.family.capitalize()
    module = importlib.import_module(f"hubcache.models.{arguments.family}")
    sizes = {
        "vocab_size": WORDS,
        "hidden_size": arguments.hidden,
        "num_hidden_layers": arguments.layers,
        "num_attention_heads": arguments.hidden // 64,
        "intermediate_size": 4 * arguments.hidden,
        "max_position_embeddings": arguments.length + 2,
    }
    config = getattr(module, f"{family}Config")(**sizes)
    config.adv_grad_factor = None
    ours = getattr(module, f"{family}ForSequenceClassification")(config)
    plain = {**config.to_dict(), "model_type": peer(arguments)}
    name = PEERS[arguments.family]
    theirs_config = getattr(transformers, f"{name}Config").from_dict(plain)
    theirs = getattr(transformers, f"{name}ForSequenceClassification")(theirs_config)
    theirs.load_state_dict(ours.state_dict())
    kind = getattr(torch, arguments.dtype)
    return ours.to(arguments.device, kind), theirs.to(arguments.device, kind)


def make_batch(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make texts of random words, the last of them half padded, with labels."""
    shape = (arguments.batch, arguments.length)
    ids, mask = torch.randint(5, WORDS, shape), torch.ones(shape, dtype=torch.long)
    mask[-1, arguments.length // 2 :] = 0
    batch = {"input_ids": ids, "attention_mask": mask, "labels": torch.randint(0, 2, shape[:1])}
    return {name: tensor.to(arguments.device) for name, tensor in batch.items()}


def check_same_logits(ours: Any, theirs: Any, batch: Mapping[str, Any]) -> None:
    """Refuse to compare models that do not compute the same."""
    with torch.no_grad():
        mine, other = (model.eval()(**batch).logits for model in (ours, theirs))
    if not torch.allclose(mine, other, atol=1e-5):
        raise CommandFailed(f"the logits differ by {(mine - other).abs().max().item()}: not the same model")


def forward(model: Any, batch: Mapping[str, Any]) -> Step:
    """Make a run of the forward pass as at inference."""

    def run() -> None:
        with torch.no_grad():
            model.eval()(**batch)

    return run


def forward_backward(model: Any, batch: Mapping[str, Any]) -> Step:
    """Make a run of the forward and backward pass as in training."""

    def run() -> None:
        model.train()(**batch).loss.backward()
        model.zero_grad()

    return run


def take_turns(contenders: Mapping[str, Step], arguments: argparse.Namespace) -> Measured:
    """Time both in turns, after two runs each that do not count; every second pair starts with the other one."""
    measured: Measured = {name: [] for name in contenders}
    names = list(contenders)
    for pair in range(-2, arguments.runs):
        for name in names[:: -1 if pair % 2 else 1]:
            timed = time_run(contenders[name], arguments)
            if pair >= 0:
                measured[name].append(timed)
    return measured


def time_run(step: Step, arguments: argparse.Namespace) -> Run:
    """Time a run to its end on the device."""
    wait(arguments.device)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(arguments.steps):
        step()
    wait(arguments.device)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, 0)


def wait(device: str) -> None:
    """Wait until the device has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def paired(ours: Sequence[Run], theirs: Sequence[Run], clock: str) -> float:
    """Return the median ratio over the pairs of runs."""
    seconds = operator.attrgetter(clock)
    return float(statistics.median(seconds(mine) / seconds(other) for mine, other in zip(ours, theirs, strict=True)))


def tell(arguments: argparse.Namespace, measured: Measured) -> None:
    """Print the line. On a CPU, which others may use as well, CPU time is judged; on a GPU the time on the wall."""
    ratios = {
        f"{what}_{clock}_to_{peer(arguments)}": paired(
            measured[f"{arguments.family}_{what}"], measured[f"{peer(arguments)}_{what}"], clock
        )
        for what in ("forward", "step")
        for clock in ("wall", "cpu")
    }
    judged = "_cpu_" if arguments.device == "cpu" else "_wall_"
    targets = {name: Target(ratio, MOST).told() for name, ratio in ratios.items() if judged in name}
    sizes = ("family", "dtype", "layers", "hidden", "batch", "length", "steps", "runs")
    line = {
        "benchmark": "encoder_speed",
        **{name: getattr(arguments, name) for name in sizes},
        "measured": measure.figures(measured),
        "ratios": {name: round(ratio, 4) for name, ratio in ratios.items()},
        "targets": targets,
        "ok": all(target["ok"] for target in targets.values()),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        },
        "machine": {
            "cpus": os.cpu_count(),
            "load": round(os.getloadavg()[0], 2),
            "device": torch.cuda.get_device_name() if arguments.device.startswith("cuda") else arguments.device,
        },
    }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
