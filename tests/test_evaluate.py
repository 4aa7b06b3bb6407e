"""Evaluating from folder to folder: figures, predictions row by row, other label orders, untrained models."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from hubcache.errors import UsageError
from hubcache.train.evaluate import PREDICTIONS, EvaluateRequest, evaluate
from hubcache.train.finetune import FinetuneRequest, finetune
from hubcache.train.predictions import Reading, batches_by_length
from hubcache.train.record import RunRecord
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, Task, changed, load_task
from tests.support.training import rows_of, tiny_bert, tiny_t5

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

TASK = load_task("rotten_tomatoes")


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return rows_of("rotten_tomatoes", "validation", 120)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> tuple[Path, RunRecord]:
    folder = tmp_path_factory.mktemp("trained")
    model = tiny_bert(folder / "model")
    (folder / "out").mkdir()
    settings = TrainSettings(learning_rate=2e-3, schedule="constant", epochs=4)
    splits = {"train": rows_of("rotten_tomatoes", "train", 400), "validation": rows}
    request = FinetuneRequest(model=model, task=TASK, splits=splits, output=folder / "out", settings=settings)
    return folder / "out", finetune(request)


def request_of(model: Path, output: Path, rows: list[Row], task: Task = TASK, **settings: Any) -> EvaluateRequest:
    return EvaluateRequest(
        model=model, task=task, rows=rows, split="validation", output=output, settings=TrainSettings(**settings)
    )


def predictions(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / PREDICTIONS).read_text("utf-8").splitlines()]


def test_a_trained_model_scores_as_at_the_end_of_its_training(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    record = evaluate(request_of(trained[0], tmp_path, rows))
    assert record.metrics["validation"] == pytest.approx(dict(trained[1].metrics["validation"]), abs=1e-6)


def test_every_row_has_a_line_in_its_order(trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path) -> None:
    evaluate(request_of(trained[0], tmp_path, rows))
    assert [line["texts"] for line in predictions(tmp_path)] == [[row["text"]] for row in rows]


def test_the_lines_say_what_the_metrics_say(trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path) -> None:
    record = evaluate(request_of(trained[0], tmp_path, rows))
    lines = predictions(tmp_path)
    right = sum(line["prediction"] == line["reference"] for line in lines) / len(lines)
    assert right == pytest.approx(record.metrics["validation"]["accuracy"])


def test_the_record_is_written_beside_the_predictions(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    record = evaluate(request_of(trained[0], tmp_path, rows))
    assert RunRecord.read(tmp_path) == record


def test_the_size_of_a_batch_changes_no_prediction(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    evaluate(request_of(trained[0], tmp_path / "one", rows, eval_batch_size=1))
    evaluate(request_of(trained[0], tmp_path / "many", rows, eval_batch_size=64))
    one, many = ([line["score"] for line in predictions(tmp_path / name)] for name in ("one", "many"))
    assert one == pytest.approx(many, abs=1e-5)


def test_rows_without_labels_are_predicted_and_not_scored(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    record = evaluate(request_of(trained[0], tmp_path, [{"text": row["text"]} for row in rows]))
    assert record.metrics == {"validation": {}}
    assert len(predictions(tmp_path)) == len(rows)


def test_a_model_with_its_labels_in_another_order_scores_the_same(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained[0])
    with torch.no_grad():
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter.flip(0).clone())
    model.config.id2label = {0: "POS", 1: "NEG"}
    shutil.copytree(trained[0], tmp_path / "other")
    model.save_pretrained(tmp_path / "other")
    record = evaluate(request_of(tmp_path / "other", tmp_path / "out", rows))
    assert record.metrics["validation"]["accuracy"] == trained[1].metrics["validation"]["accuracy"]


def test_a_model_that_knows_other_labels_is_refused(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    task = changed(TASK, {"labels": ("bad", "good", "so-so"), "codes": ()})
    with pytest.raises(UsageError, match="the model tells 2 labels apart"):
        evaluate(request_of(trained[0], tmp_path, rows, task))


def test_a_model_without_a_trained_head_is_refused(rows: list[Row], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trained"):
        evaluate(request_of(tiny_bert(tmp_path / "model"), tmp_path / "out", rows))


def test_a_split_without_rows_is_refused(trained: tuple[Path, RunRecord], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no rows"):
        evaluate(request_of(trained[0], tmp_path, []))


def test_a_model_of_entailment_classifies_without_training(tmp_path: Path, rows: list[Row]) -> None:
    model = tiny_bert(tmp_path / "model")
    nli = rows_of("med_nli_en", "train", 40)
    task = changed(load_task("mnli"), {"labels": ("entailment", "neutral", "contradiction")})
    (tmp_path / "nli").mkdir()
    out, splits = tmp_path / "nli", {"train": pairs_of(nli)}
    settings = TrainSettings(epochs=1)
    finetune(FinetuneRequest(model=model, task=task, splits=splits, output=out, settings=settings))
    record = evaluate(replace(request_of(tmp_path / "nli", tmp_path / "out", rows[:20]), zero_shot=True))
    assert sum(map(sum, record.confusion)) == 20
    assert "accuracy" in record.metrics["validation"]


def pairs_of(rows: list[Row]) -> list[Row]:
    """Return inference rows as MNLI has them."""
    return [{"premise": row["sentence1"], "hypothesis": row["sentence2"], "label": row["gold_label"]} for row in rows]


def test_a_classifier_of_something_else_is_no_model_of_entailment(
    trained: tuple[Path, RunRecord], rows: list[Row], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="no classifier of entailment"):
        evaluate(replace(request_of(trained[0], tmp_path, rows), zero_shot=True))


@pytest.mark.parametrize("generate", [True, False])
def test_a_generative_model_is_scored_untrained(tmp_path: Path, generate: bool) -> None:
    topics = rows_of("klue_ynat", "validation", 12)
    task = load_task("klue_tc_gen")
    record = evaluate(request_of(tiny_t5(tmp_path / "model"), tmp_path / "out", topics, task, generate=generate))
    assert "ke_t5_exact_match_str" in record.metrics["validation"]
    # Only with the target's tokens before it does a model have a loss.
    assert ("loss" in record.metrics["validation"]) is not generate


def test_batches_hold_rows_of_like_length_within_the_budget() -> None:
    lengths = [5, 100, 90, 7, 2000, 6]
    batches = batches_by_length(lengths, Reading("text-classification", torch.device("cpu")))
    assert batches[0][0] == 4
    assert sorted(number for batch in batches for number in batch) == list(range(6))
    assert all(len(batch) * lengths[batch[0]] <= 4096 for batch in batches)
