"""SOFA's tutorial, its import lines changed: each script in a process of its own that can connect nowhere."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
models = pytest.importorskip("hubcache.models")

pytestmark = [pytest.mark.train, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
SPECIAL = ["[PAD]", *(f"[unused{number}]" for number in range(1, 100)), "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ENGLISH = [*SPECIAL, *["the", "movie", "was", "great", "plot", "is", "slow", "a"]]
CHINESE = [*SPECIAL, *"今天气很好我们去公园散步吧"]
RUNNER = """
import runpy, sys, torch
from tests.support.finetuning import refuse_connections
refuse_connections()
torch.set_num_threads(1)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(script: str, *arguments: object) -> str:
    """Run a script to its end; return what it printed."""
    command = [sys.executable, "-c", RUNNER, f"tests/scripts/{script}", *map(str, arguments)]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=240, check=False)
    assert told.returncode == 0, told.stderr
    return told.stdout


@pytest.fixture(scope="module")
def sbert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a StructBERT of random weights."""
    folder = tmp_path_factory.mktemp("sbert")
    (folder / "vocab.txt").write_text("\n".join(ENGLISH), "utf-8")
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    models.SbertModel(models.SbertConfig(vocab_size=len(ENGLISH), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def palm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a PALM of random weights."""
    folder = tmp_path_factory.mktemp("palm")
    (folder / "vocab.txt").write_text("\n".join(CHINESE), "utf-8")
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "dec_hidden_layers": 1, "num_attention_heads": 2}
    config = models.PalmConfig(vocab_size=len(CHINESE), intermediate_size=64, max_position_embeddings=128, **sizes)
    models.PalmForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_child_tuning_f_moves_what_a_trainer_trains(sbert: Path, tmp_path: Path) -> None:
    printed = run("sofa_child_tuning.py", sbert, tmp_path, "ChildTuning-F")
    # Three steps, each of which lets 0.3 through: a weight stays where none of them did.
    assert float(printed.split("moved ")[1].split()[0]) == pytest.approx(1 - 0.7**3, abs=0.02)


def test_child_tuning_d_moves_only_a_part(sbert: Path, tmp_path: Path) -> None:
    printed = run("sofa_child_tuning.py", sbert, tmp_path, "ChildTuning-D")
    assert float(printed.split("moved ")[1].split()[0]) == pytest.approx(0.3, abs=0.005)


def test_an_injected_pipeline_answers_through_transformers_pipeline(sbert: Path) -> None:
    one, several = json.loads(run("sofa_pipeline.py", sbert).splitlines()[-1])
    assert (one["asked"], [set(answer) for answer in several]) == ("once", [{"label", "asked"}] * 2)


@pytest.fixture(scope="module")
def generation(palm: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Run the script of PALM; return what it printed, and its folder."""
    folder = tmp_path_factory.mktemp("generation")
    lines = folder / "train.txt"
    lines.write_text("今天天气很好\t天气好\n我们去公园散步吧\t去公园\n" * 4, "utf-8")
    return run("sofa_palm.py", palm, lines, folder / "made"), folder / "made"


def test_palm_is_scored_by_bleu_and_rouge_at_each_epoch(generation: tuple[str, Path]) -> None:
    results = [line.split(":", 1)[1] for line in generation[0].splitlines() if line.startswith("test result 8: ")]
    names = ["Bleu-1", "Bleu-2", "Bleu-3", "Bleu-4", "Rouge-L"]
    assert [list(ast.literal_eval(result.strip())) for result in results] == [names] * 3


def test_palm_is_saved_where_the_reference_crashed(generation: tuple[str, Path]) -> None:
    checkpoint = generation[1] / "checkpoint-6"
    model, loading = models.PalmForConditionalGeneration.from_pretrained(checkpoint, output_loading_info=True)
    assert (model.config.model_type, *map(set, (loading["missing_keys"], loading["unexpected_keys"]))) == (
        "palm",
        set(),
        set(),
    )
