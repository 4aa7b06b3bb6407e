"""PALM generating: the reference's way against a key-value cache, with random weights; how good a text is is not asked.

All in one process and over the same kernels, so that only the algorithms differ; every peer's output is checked.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import transformers

from hubcache.models.beam_search import TextGenerator
from hubcache.models.palm import PalmConfig, PalmForConditionalGeneration
from tests.bench import measure
from tests.bench.measure import Run, Target

START, END = 101, 102
WALL_TO_REFERENCE = 1 / 5
ALPHA = 0.6
# Logits far enough apart that rounding does not choose the beams, which the published 0.00707 would let it.
SPREAD = 0.05

Texts = list[list[int]]
Contender = Callable[[], Texts]


class DifferentOutput(Exception):
    """Two ways to the same text gave two texts: the times mean nothing."""


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = options().parse_args()
    torch.set_num_threads(arguments.threads)
    model, batch = random_model(arguments), random_batch(arguments)
    contenders = {
        "reference": lambda: rerun_search(model, batch, arguments.beam, arguments.length),
        "text_generator": lambda: cached_search(model, batch, arguments.beam, arguments.length),
        "greedy_uncached": lambda: greedy(model, batch, arguments.length, cached=False),
        "greedy_cached": lambda: greedy(model, batch, arguments.length, cached=True),
    }
    same(contenders["greedy_cached"](), cached_search(model, batch, 1, arguments.length))
    measured, texts = alternate(contenders, arguments.runs)
    same(texts["reference"], texts["text_generator"])
    same(texts["greedy_uncached"], texts["greedy_cached"])
    tell(arguments, measured)


def options() -> argparse.ArgumentParser:
    """Begin the command line."""
    parser = measure.parser(__doc__, runs=1)
    parser.add_argument("--device", default="cpu", help="where to compute, as torch names it")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--layers", type=int, default=6, help="layers of the encoder, and of the decoder")
    parser.add_argument("--source", type=int, default=64, help="tokens read")
    parser.add_argument("--length", type=int, default=64, help="tokens generated")
    parser.add_argument("--batch", type=int, default=2, help="inputs at a time")
    parser.add_argument("--beam", type=int, default=5, help="beams of each input")
    return parser


def random_model(arguments: argparse.Namespace) -> Any:
    """Make a PALM of the base model's width."""
    torch.manual_seed(0)
    layers = {"num_hidden_layers": arguments.layers, "dec_hidden_layers": arguments.layers}
    model = PalmForConditionalGeneration(PalmConfig(initializer_range=SPREAD, **layers))
    return model.eval().to(arguments.device)


def random_batch(arguments: argparse.Namespace) -> list[Any]:
    """Make tokens, types and mask [batch, source]; every second input is padded by a quarter."""
    tokens = torch.randint(200, 20000, (arguments.batch, arguments.source), device=arguments.device)
    mask = torch.ones_like(tokens)
    mask[1::2, arguments.source - arguments.source // 4 :] = 0
    return [tokens, torch.zeros_like(tokens), mask]


def rerun_search(model: Any, batch: Sequence[Any], beams: int, length: int) -> Texts:
    """Search as the reference does: the whole decoder over all that there is, at every step.

    No beam may end before the last step, so that the reference's rules for ended beams do not come into it.
    """
    tokens, types, mask = batch
    count = len(tokens)
    with torch.no_grad():
        encoded = model.get_encoder()(tokens, mask, types).last_hidden_state.repeat_interleave(beams, 0)
        mask = mask.repeat_interleave(beams, 0)
        alive = torch.full((count * beams, 1), START, device=tokens.device)
        total = torch.tensor([0.0] + [float("-inf")] * (beams - 1), device=tokens.device).repeat(count)
        for step in range(length):
            _, logits, _ = model(target_tokens=alive, attention_mask=mask, is_infer=True, sequence_output=encoded)
            alive, total = extended(alive, total, logits[:, -1], beams, step)
    return list(alive.view(count, beams, -1)[:, 0, 1:].tolist())


def extended(alive: Any, total: Any, logits: Any, beams: int, step: int) -> tuple[Any, Any]:
    """Take the best continuations of [rows, seq] by the logits [rows, vocab]."""
    vocab = logits.shape[-1]
    log_probs = torch.log(torch.softmax(logits, dim=-1))
    log_probs[:, END] = -1e20
    penalty = ((5.0 + step + 1) / 6.0) ** ALPHA
    scores, best = ((log_probs + total[:, None]) / penalty).view(-1, beams * vocab).topk(beams, dim=-1)
    rows = best // vocab + torch.arange(len(best), device=best.device)[:, None] * beams
    return torch.cat([alive[rows.flatten()], (best % vocab).view(-1, 1)], -1), (scores * penalty).flatten()


def cached_search(model: Any, batch: Sequence[Any], beams: int, length: int) -> Texts:
    """Search with hubcache's TextGenerator."""
    generator = TextGenerator(model, None, {"[CLS]": START, "[SEP]": END}, beams, min_length=length, max_length=length)
    return [best.tolist() for [best] in generator.translate_batch(batch)["predictions"]]


def greedy(model: Any, batch: Sequence[Any], length: int, *, cached: bool) -> Texts:
    """Generate with transformers."""
    tokens, types, mask = batch
    generated = model.generate(
        tokens,
        attention_mask=mask,
        token_type_ids=types,
        min_new_tokens=length,
        max_new_tokens=length,
        use_cache=cached,
    )
    return list(generated[:, 1:].tolist())


def alternate(contenders: dict[str, Contender], runs: int) -> tuple[dict[str, list[Run]], dict[str, Texts]]:
    """Let the contenders take turns; return their times and what each generated last."""
    measured: dict[str, list[Run]] = {name: [] for name in contenders}
    texts: dict[str, Texts] = {}
    for _ in range(runs):
        for name, contender in contenders.items():
            run, texts[name] = timed(contender)
            measured[name].append(run)
    return measured, texts


def timed(contender: Contender) -> tuple[Run, Texts]:
    """Run it once; the texts are on the CPU at the end, so nothing is still computing elsewhere.

    The peak is that of the process so far.
    """
    wall, cpu = time.perf_counter(), time.process_time()
    texts = contender()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, len(texts)), texts


def same(ours: Texts, theirs: Texts) -> None:
    """Compare two ways to the same text.

    Raises:
        DifferentOutput: they gave different ones.
    """
    if ours != theirs:
        raise DifferentOutput(f"{ours} is not {theirs}")


def tell(arguments: argparse.Namespace, measured: dict[str, list[Run]]) -> None:
    """Print the line; the ratios are of the way with a cache to the way without."""
    compared = {
        **measure.ratios(measured["text_generator"], measured["reference"], "reference"),
        **measure.ratios(measured["greedy_cached"], measured["greedy_uncached"], "greedy_uncached"),
    }
    targets = {"wall_to_reference": Target(compared["wall_to_reference"], WALL_TO_REFERENCE)}
    sizes = {
        name: getattr(arguments, name)
        for name in ("device", "threads", "layers", "source", "length", "batch", "beam", "runs")
    }
    used = {"torch": torch.__version__, "transformers": transformers.__version__, "chip": chip(arguments.device)}
    measure.report("palm_generate", sizes | used, measured, compared=compared, targets=targets, place=arguments.dir)


def chip(device: str) -> str:
    """Name what computes."""
    return str(torch.cuda.get_device_name(device)) if device.startswith("cuda") else "cpu"


if __name__ == "__main__":
    main()
