"""Sentences of mixed length through a pipeline of ours and transformers' own at its best batch size; labels are random.

All in one process, on one model; that both say the same is checked first.
"""

from __future__ import annotations

import argparse
import random
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer
from transformers import pipeline as theirs

from hubcache.train.pipelines.build import build
from tests.bench import measure
from tests.bench.measure import Run, Target

BATCH_SIZES = (1, 8, 32, 64)
WALL_TO_TRANSFORMERS = 1 / 1.5


class DifferentOutput(Exception):
    """The two pipelines disagree: their times mean nothing."""


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    model, tokenizer = random_model(arguments)
    texts = sentences(arguments.sentences)
    ours = build("text-classification", model, tokenizer, device=arguments.device)
    peer: Any = theirs("text-classification", model=model, tokenizer=tokenizer, device=arguments.device)
    same(ours(texts[:64]), peer(texts[:64], truncation=True))
    contenders: dict[str, Callable[[], Any]] = {"hubcache": lambda: ours(texts)}
    for size in BATCH_SIZES:
        contenders[f"transformers_{size}"] = lambda size=size: peer(texts, batch_size=size, truncation=True)  # type: ignore[misc]  # mypy cannot infer a bound default
    measured: dict[str, list[Run]] = {name: [] for name in contenders}
    for _ in range(arguments.runs):
        for name, contender in contenders.items():
            measured[name].append(timed(contender))
    best = min((name for name in contenders if name != "hubcache"), key=lambda name: measure.wall(measured[name]))
    compared = measure.ratios(measured["hubcache"], measured[best], best)
    sizes = {"runs": arguments.runs, "sentences": arguments.sentences, "device": arguments.device, "best": best}
    targets = {"wall_to_transformers": Target(compared[f"wall_to_{best}"], WALL_TO_TRANSFORMERS)}
    measure.report("predict_speed", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


def options() -> argparse.ArgumentParser:
    """Begin the command line."""
    parser = measure.parser(__doc__, runs=3)
    parser.add_argument("--device", default="cpu", help="where to compute, as torch names it")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--sentences", type=int, default=2000, help="how many")
    parser.add_argument("--width", type=int, default=384, help="the model's hidden size")
    parser.add_argument("--layers", type=int, default=6, help="its layers")
    return parser


def random_model(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Make a classifier of MiniLM's shape over words w0 to w999."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    words = {word: number for number, word in enumerate([*special, *(f"w{n}" for n in range(1000))])}
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(words), hidden_size=arguments.width, num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.width // 32, intermediate_size=4 * arguments.width,
    )  # fmt: skip
    tokenizer = BertTokenizer(vocab=words, model_max_length=512)
    return BertForSequenceClassification(config).eval(), tokenizer


def sentences(count: int) -> list[str]:
    """Draw texts of 3 to 200 words, most of them short."""
    drawn = random.Random(0)
    lengths = [min(200, 3 + int(drawn.expovariate(1 / 20))) for _ in range(count)]
    return [" ".join(f"w{drawn.randrange(1000)}" for _ in range(length)) for length in lengths]


def same(ours: list[dict[str, Any]], peers: list[dict[str, Any]]) -> None:
    """Check that both say the same. Raises: DifferentOutput."""
    for one, other in zip(ours, peers, strict=True):
        if one["label"] != other["label"] or abs(one["score"] - other["score"]) > 1e-4:
            raise DifferentOutput(f"{one} is not {other}")


def timed(contender: Callable[[], Any]) -> Run:
    """Run a contender once."""
    started, busy = time.perf_counter(), time.process_time()
    said = contender()
    wall, cpu = time.perf_counter() - started, time.process_time() - busy
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, len(said))


if __name__ == "__main__":
    main()
