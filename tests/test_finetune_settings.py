"""The settings of a training run: typed values, nearest keys, defaults by task and size."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from hubcache.errors import BadConfig
from hubcache.train.settings import TrainSettings, settings_help

PLAIN = TrainSettings()


def test_a_pair_changes_its_setting_and_no_other() -> None:
    told = PLAIN.updated_by(["learning_rate=3e-5"]).told()
    assert {name for name, value in told.items() if value != PLAIN.told()[name]} == {"learning_rate"}


@pytest.mark.parametrize(
    ("pair", "name", "value"),
    [
        ("lr=1e-4", "learning_rate", 1e-4),
        ("batch=8", "batch_size", 8),
        ("length-grouping=off", "length_grouping", False),
        ("evaluate=no", "evaluate", "no"),
        ("epochs=2", "epochs", 2.0),
        ("child_tuning=ChildTuning-D", "child_tuning", "ChildTuning-D"),
        ("metric=", "metric", ""),
    ],
)
def test_a_value_is_parsed_to_its_fields_type(pair: str, name: str, value: object) -> None:
    found = getattr(PLAIN.updated_by([pair]), name)
    assert found == value
    assert type(found) is type(value)


def test_an_unknown_key_names_the_nearest() -> None:
    with pytest.raises(BadConfig) as caught:
        PLAIN.updated_by(["lerning_rate=1"])
    assert caught.value.hint == "did you mean learning_rate?"


WRONG = (
    *("epochs=many", "batch_size=0", "batch_size=1.5", "precision=fp8", "reserve_p=1.2", "length_grouping=maybe"),
    *("learning_rate=nan", "learning_rate=inf", "seed=-1", "seed"),
)


@pytest.mark.parametrize("pair", WRONG)
def test_a_value_that_does_not_fit_is_refused(pair: str) -> None:
    with pytest.raises(BadConfig):
        PLAIN.updated_by([pair])


def test_a_yaml_file_sets_numbers_that_yaml_reads_as_text(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("learning_rate: 3e-5\nevaluate: no\nlength_grouping: false\n")
    changed = PLAIN.updated_from(file)
    assert (changed.learning_rate, changed.evaluate, changed.length_grouping) == (3e-5, "no", False)


@pytest.mark.parametrize("text", ["- a\n- b\n", "learning_rate: [1]\n", "a: b: c\n", "epohcs: 3\n"])
def test_a_yaml_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=r"settings\.yaml"):
        PLAIN.updated_from(file)


def test_an_empty_yaml_file_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("")
    assert PLAIN.updated_from(tmp_path / "settings.yaml") == PLAIN


def test_larger_models_take_smaller_steps() -> None:
    rates = [TrainSettings.for_task("text-classification", size, 5000).learning_rate for size in (10**7, 10**8, 10**9)]
    assert rates == sorted(rates, reverse=True)
    assert len(set(rates)) == 3


def test_small_sets_are_read_more_often() -> None:
    epochs = [
        TrainSettings.for_task("text-classification", 10**8, rows).epochs for rows in (500, 5000, 50_000, 500_000)
    ]
    assert epochs == sorted(epochs, reverse=True)


def test_a_t5_takes_a_larger_rate_than_an_encoder() -> None:
    encoder = TrainSettings.for_task("text-classification", 10**8, 5000)
    assert TrainSettings.for_task("text-classification", 10**8, 5000, t5=True).learning_rate > encoder.learning_rate


def test_lines_star_what_differs_from_the_defaults() -> None:
    starred = [line for line in PLAIN.updated_by(["seed=7"]).lines(PLAIN) if line.startswith("*")]
    assert len(starred) == 1
    assert starred[0].split()[1:3] == ["seed", "7"]


def test_every_setting_says_what_it_is() -> None:
    assert all(settings_help()[one.name] for one in fields(TrainSettings))


def test_the_settings_import_no_torch() -> None:
    code = "import sys, hubcache.train.settings; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
