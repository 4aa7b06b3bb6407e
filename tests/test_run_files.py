"""The run files of published tables: each names what exists here, and says where its figures come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hubcache.errors import BadConfig, UsageError
from hubcache.train.metrics.registry import METRICS
from hubcache.train.recipes import RunFile, read_run_files, run_file, run_files
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import changed, load_task, shipped_tasks
from tests.support.goldens import golden

ALL = list(run_files().values())
ROOT = Path(__file__).resolve().parents[1]
every = pytest.mark.parametrize("one", ALL, ids=[one.name for one in ALL])

RUN = "table: {source: here, model: org/name, runs: {mine: {task: mnli%s}}}\n"


def from_text(tmp_path: Path, text: str) -> list[RunFile]:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return list(read_run_files(path))


@every
def test_its_task_is_shipped_and_takes_its_changes(one: RunFile) -> None:
    assert one.task in shipped_tasks()
    assert changed(load_task(one.task), one.task_settings).name == one.task


@every
def test_its_settings_are_those_of_a_training_run(one: RunFile) -> None:
    told = TrainSettings().updated(one.settings).told()
    assert {key: told[key] for key in one.settings} == dict(one.settings)


@every
def test_it_says_all_that_decides_a_training_run(one: RunFile) -> None:
    decisive = {"batch_size", "learning_rate", "warmup", "schedule", "weight_decay", "max_grad_norm", "max_length"}
    assert decisive <= set(one.settings)
    assert {"epochs", "max_steps"} & set(one.settings)


@every
def test_its_figures_are_of_metrics_that_its_task_computes(one: RunFile) -> None:
    task = load_task(one.evaluated_as) if one.evaluated_as else changed(load_task(one.task), one.task_settings)
    assert set(one.published) <= set(task.metrics)


@every
def test_its_figures_are_in_the_scale_of_their_metrics(one: RunFile) -> None:
    for name, value in one.published.items():
        assert METRICS[name].perfect / 20 < value < METRICS[name].perfect


@every
def test_its_model_is_in_the_catalogue_or_on_the_hub(one: RunFile) -> None:
    catalogue = yaml.safe_load((ROOT / "mirrors.yaml").read_text(encoding="utf-8"))["catalogue"]
    assert one.model in catalogue or one.model.count("/") == 1


@every
def test_it_says_where_it_is_from_and_what_is_different(one: RunFile) -> None:
    assert one.source.startswith(("alibaba/AliceMind", "AIRC-KETI/"))
    assert one.notes


def test_every_ke_t5_task_has_one() -> None:
    theirs = json.loads(golden("ket5/task_registry.json").read_text(encoding="utf-8"))
    assert set(theirs) <= {one.task for one in ALL}


@pytest.mark.parametrize(
    ("name", "metric", "value"),
    [
        ("structbert-glue-mnli", "accuracy", 0.8662),
        ("structbert-glue-older-mrpc", "accuracy", 0.8651),
        ("structbert-clue-cluener", "entity_f1", 0.7798),
        ("palm-lcsts", "sofa_bleu4", 0.1716),
        ("veco-xnli", "accuracy", 0.7963),
        ("veco-squad-xquad", "squad_f1", 77.5),
        ("veco-wmt14-en-de", "bleu", 30.5),
        ("child-tuning-cluewsc-f", "accuracy", 0.875),
    ],
)
def test_a_figure_is_the_published_one(name: str, metric: str, value: float) -> None:
    assert run_file(name).published[metric] == value


def test_a_runs_own_settings_go_before_its_tables() -> None:
    squad = run_file("veco-squad-xquad").settings
    assert (squad["warmup"], squad["learning_rate"], squad["eval_batch_size"]) == (500.0, 2e-5, 16)


def test_a_runs_notes_come_after_its_tables() -> None:
    assert len(run_file("structbert-glue-older-mnli").notes) == len(run_file("structbert-glue-older-qqp").notes) + 1


def test_a_number_that_yaml_reads_as_text_is_a_number() -> None:
    assert run_file("structbert-glue-sst2").settings["learning_rate"] == 5e-5


def test_a_run_file_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        run_file("palm-lcsts").settings["epochs"] = 1  # type: ignore[index]


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        run_file("structbert-glue-sst")
    assert "structbert-glue-sst2" in caught.value.hint


def test_a_wrong_key_is_told_with_its_file_and_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"mine\.yaml: mine: a run has no 'publishd'") as caught:
        from_text(tmp_path, RUN % ", publishd: {}")
    assert "published" in caught.value.hint


def test_a_wrong_setting_is_told_with_its_run(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"mine\.yaml: mine: there is no setting 'learning_rat'"):
        from_text(tmp_path, RUN % ", settings: {learning_rat: 1}")


def test_a_short_name_of_a_setting_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="write the setting 'lr' in full"):
        from_text(tmp_path, RUN % ", settings: {lr: 1e-5}")


def test_a_run_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="names no model"):
        from_text(tmp_path, "table: {source: here, runs: {mine: {task: mnli}}}\n")


def test_a_table_of_anchors_holds_no_runs(tmp_path: Path) -> None:
    assert [one.name for one in from_text(tmp_path, "x-anchors: {a: 1}\n" + RUN % "")] == ["mine"]
