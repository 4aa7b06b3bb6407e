"""What is found before a run begins: each mistake with its cure, in seconds and without loading weights."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, RobertaConfig

from hubcache.train.checks import check, memory_needed, model_limit, parameters_in
from hubcache.train.features import Finding
from hubcache.train.finetune import FinetuneRequest
from hubcache.train.heads import load
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import changed, load_task
from tests.support.training import rows_of, tiny_bert

pytestmark = pytest.mark.train
TASK = load_task("rotten_tomatoes")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model"))


def request_of(model: Path, output: Path, **settings: Any) -> FinetuneRequest:
    splits = {split: rows_of("rotten_tomatoes", split, 50) for split in ("train", "validation")}
    return FinetuneRequest(
        model=model, task=TASK, splits=splits, output=output, settings=replace(TrainSettings(), **settings)
    )


def fatal(request: FinetuneRequest) -> list[Finding]:
    return [one for one in check(request) if one.fatal]


def test_nothing_is_found_where_nothing_is_wrong(model: Path, tmp_path: Path) -> None:
    assert fatal(request_of(model, tmp_path)) == []


def test_a_check_takes_seconds(model: Path, tmp_path: Path) -> None:
    request = request_of(model, tmp_path)
    check(request)
    started = time.process_time()
    check(request)
    assert time.process_time() - started < 5


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    found = fatal(request_of(tmp_path, tmp_path))
    assert any("no config.json" in one.what for one in found)


def test_missing_weights_are_named_with_the_cure(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy/model.safetensors").unlink()
    (found,) = fatal(request_of(tmp_path / "copy", tmp_path))
    assert "no weights" in found.what
    assert "hubcache pull" in found.cure


def test_a_config_that_is_no_json_is_named(model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy/config.json").write_text("{")
    assert any("cannot be read" in one.what for one in fatal(request_of(tmp_path / "copy", tmp_path)))


def test_an_unknown_head_is_named(model: Path, tmp_path: Path) -> None:
    request = request_of(model, tmp_path)
    wrong = replace(request, task=changed(TASK, {"head": "BertForTarot"}))
    assert any("BertForTarot" in one.what for one in fatal(wrong))


def test_inputs_longer_than_the_model_takes_are_named(model: Path, tmp_path: Path) -> None:
    found = fatal(request_of(model, tmp_path, max_length=1024))
    assert any("1024 tokens, the model 512" in one.what for one in found)


def test_a_label_that_is_none_is_named(model: Path, tmp_path: Path) -> None:
    request = request_of(model, tmp_path)
    wrong = {**request.splits, "train": [*request.splits["train"], {"text": "a", "label": "meh"}]}
    assert any("meh" in one.what for one in fatal(replace(request, splits=wrong)))


def test_a_batch_that_cannot_fit_the_memory_is_named_with_the_cure(model: Path, tmp_path: Path) -> None:
    found = check(request_of(model, tmp_path, batch_size=10**7))
    assert any("gradient_accumulation" in one.cure for one in found)


def test_a_metric_that_the_task_does_not_have_is_named(model: Path, tmp_path: Path) -> None:
    assert any("no metric" in one.what for one in fatal(request_of(model, tmp_path, metric="bleu")))


def test_a_teacher_without_weights_is_named(model: Path, tmp_path: Path) -> None:
    found = fatal(replace(request_of(model, tmp_path), teacher=tmp_path / "nothing"))
    assert any("teacher" in one.what for one in found)


def test_parameters_are_counted_without_loading_them(model: Path) -> None:
    counted = parameters_in(model)
    loaded = load(model, TASK)
    assert counted + sum(loaded.model.get_parameter(name).numel() for name in loaded.new) == loaded.parameters


def test_recomputing_activations_takes_less_memory(model: Path) -> None:
    config = AutoConfig.from_pretrained(model)
    plain, recomputed = (
        memory_needed(TASK, config, TrainSettings(gradient_checkpointing=on), 10**6, 128) for on in (False, True)
    )
    assert recomputed < plain


def test_robertas_positions_begin_behind_the_paddings_number() -> None:
    assert model_limit(RobertaConfig(max_position_embeddings=514)) == 512


def test_t5_has_no_limit(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    assert model_limit(AutoConfig.from_pretrained(tmp_path)) is None
