"""The model card: what the Hub's parser reads of it, and that no name or text breaks it."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from hubcache.train.card import hub_name, write_card
from hubcache.train.record import Input, RunRecord
from hubcache.train.settings import TrainSettings
from tests.support.runs import HOSTILE, hostile_record, record

REPO = "me/minilm-rotten"


def written(tmp_path: Path, repo: str = REPO, **changes: Any) -> str:
    return write_card(record(**changes), tmp_path, repo).read_text(encoding="utf-8")


def loaded(tmp_path: Path, **changes: Any) -> Any:
    return ModelCard.load(write_card(record(**changes), tmp_path, REPO)).data


def with_config(folder: Path, **config: Any) -> Path:
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def test_the_card_is_the_folders_readme(tmp_path: Path) -> None:
    assert write_card(record(), tmp_path, REPO) == tmp_path / "README.md"


def test_the_hub_reads_base_model_data_language_and_task(tmp_path: Path) -> None:
    told = loaded(tmp_path).to_dict()
    assert told["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert told["datasets"] == ["cornell-movie-review-data/rotten_tomatoes"]
    assert (told["language"], told["library_name"], told["pipeline_tag"]) == (
        "en",
        "transformers",
        "text-classification",
    )
    assert told["tags"] == ["hubcache", "rotten_tomatoes"]


def test_the_hub_reads_every_figure_of_every_split(tmp_path: Path) -> None:
    results = loaded(tmp_path).eval_results
    assert [(one.dataset_split, one.metric_type, one.metric_value) for one in results] == [
        ("validation", "accuracy", 0.8321),
        ("validation", "macro_f1", 0.8312),
        ("test", "accuracy", 0.7921),
    ]
    assert {(one.task_type, one.dataset_name) for one in results} == {("text-classification", "rotten_tomatoes")}


def test_the_card_comes_back_as_it_was_written(tmp_path: Path) -> None:
    card = ModelCard.load(write_card(record(), tmp_path, REPO))
    again = tmp_path / "again"
    again.mkdir()
    card.save(again / "README.md")
    assert ModelCard.load(again / "README.md").data.to_dict() == card.data.to_dict()


def test_no_licence_is_made_up(tmp_path: Path) -> None:
    assert loaded(tmp_path).license is None


@pytest.mark.parametrize(
    ("task", "language"), [("klue_nli", "ko"), ("afqmc", "zh"), ("mnli", "en"), ("xnli", None), ("my_task", None)]
)
def test_the_language_is_told_where_the_task_has_one(tmp_path: Path, task: str, language: str | None) -> None:
    assert loaded(tmp_path, task=task).language == language


@pytest.mark.parametrize(
    ("task", "tag"),
    [
        ("klue_sts_reg", "text-classification"),
        ("conll2003", "token-classification"),
        ("squad", "question-answering"),
        ("summarization", "summarization"),
        ("klue_tc_gen", "text2text-generation"),
        ("my_task", None),
    ],
)
def test_the_hubs_word_for_the_task_is_told(tmp_path: Path, task: str, tag: str | None) -> None:
    assert loaded(tmp_path, task=task).pipeline_tag == tag


def test_a_figure_that_is_no_number_is_left_out_of_the_index(tmp_path: Path) -> None:
    results = loaded(tmp_path, metrics={"test": {"accuracy": math.nan, "macro_f1": 0.5}}).eval_results
    assert [one.metric_type for one in results] == ["macro_f1"]


def test_without_figures_there_is_no_index(tmp_path: Path) -> None:
    assert "model-index" not in loaded(tmp_path, metrics={}).to_dict()


@pytest.mark.parametrize(
    ("name", "repo"),
    [
        ("org/name", "org/name"),
        ("hf:org/name@main", "org/name"),
        ("bert-base-uncased", "bert-base-uncased"),
        ("hf:datasets/org/name@" + "a" * 40, "org/name"),
        ("../model", ""),
        ("./model", ""),
        ("/srv/models/bert", ""),
        ("https://host/x.tar.gz", ""),
        ("zoo:nlp/a/b", ""),
        ("org/name\n", ""),
    ],
)
def test_a_hub_name_is_taken_out_of_what_was_typed(name: str, repo: str) -> None:
    assert hub_name(name) == repo


def test_a_model_from_a_folder_names_no_base_model(tmp_path: Path) -> None:
    told = loaded(tmp_path, model=Input("./my model", "d" * 64)).to_dict()
    assert "base_model" not in told
    assert "base_model_relation" not in told


def test_inputs_stand_with_their_digests(tmp_path: Path) -> None:
    text = written(tmp_path, teacher=Input("org/teacher", "e" * 40))
    assert f"| model | `sentence-transformers/all-MiniLM-L6-v2` | `{'a' * 40}` |" in text
    assert f"| data | `more.jsonl` | `{'c' * 64}` |" in text
    assert f"| teacher | `org/teacher` | `{'e' * 40}` |" in text


def test_only_settings_that_are_not_the_default_are_listed(tmp_path: Path) -> None:
    part = written(tmp_path).partition("## Settings")[2].partition("##")[0]
    assert re.findall(r"^\| `(\w+)` \| `(.*)` \|$", part, re.MULTILINE) == [
        ("epochs", "5.0"),
        ("learning_rate", "3e-05"),
    ]


def test_plain_defaults_are_said_to_be_so(tmp_path: Path) -> None:
    assert "All as hubcache's plain defaults have them." in written(tmp_path, settings=TrainSettings().told())


def test_the_best_metric_is_in_the_first_line_and_the_first_row(tmp_path: Path) -> None:
    text = written(tmp_path)
    assert "**`accuracy` 0.8321** on validation" in text
    rows = text.partition("## Metrics")[2].splitlines()
    assert rows[2:5] == ["| metric | validation | test |", "| --- | --- | --- |", "| `accuracy` | 0.8321 | 0.7921 |"]


def test_the_command_that_makes_it_again_stands_in_full(tmp_path: Path) -> None:
    assert f"```sh\n{record().command}\n```" in written(tmp_path)


def test_loading_takes_the_auto_class_of_the_task(tmp_path: Path) -> None:
    text = written(with_config(tmp_path, architectures=["BertForSequenceClassification"], model_type="bert"))
    assert f'model = AutoModelForSequenceClassification.from_pretrained("{REPO}")' in text
    assert "hubcache.models" not in text


def test_a_class_of_ours_is_imported_from_hubcache(tmp_path: Path) -> None:
    text = written(with_config(tmp_path, architectures=["SbertForSequenceClassification"], model_type="sbert"))
    assert "from hubcache.models import SbertForSequenceClassification" in text
    assert f'model = SbertForSequenceClassification.from_pretrained("{REPO}")' in text


def test_a_t5_that_classifies_is_loaded_by_its_encoders_class(tmp_path: Path) -> None:
    text = written(with_config(tmp_path, model_type="t5"), task="klue_tc")
    assert "from hubcache.models import T5EncoderForSequenceClassificationMean" in text


def test_an_architecture_that_is_no_name_is_not_believed(tmp_path: Path) -> None:
    text = written(with_config(tmp_path, architectures=["Sbert\nimport os"]))
    assert "import os" not in text


@pytest.mark.parametrize("task", ["klue_tc", "squad", "summarization", "my_task"])
def test_the_loading_code_is_python(tmp_path: Path, task: str) -> None:
    code = written(tmp_path, task=task).partition("```python\n")[2].partition("\n```")[0]
    compile(code, "card", "exec")


def test_a_task_file_of_the_users_is_not_run_for_a_card(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text("raise SystemExit('was run')", encoding="utf-8")
    assert loaded(tmp_path, task=str(tmp_path / "task.py")).pipeline_tag is None


def test_hostile_texts_leave_the_card_readable(tmp_path: Path) -> None:
    path = write_card(hostile_record(), tmp_path, f"me/{HOSTILE}")
    card = ModelCard.load(path, ignore_metadata_errors=True)
    assert card.data.tags[0] == "hubcache"
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", path.read_text(encoding="utf-8"))


def test_hostile_texts_stay_text_outside_code(tmp_path: Path) -> None:
    body = write_card(hostile_record(), tmp_path, REPO).read_text(encoding="utf-8").partition("\n---\n")[2]
    without_fences = re.sub(r"(?ms)^(`{3,}).*?^\1$", "", body)
    outside = re.sub(r"(`+)(?:.*?)(?<!`)\1(?!`)", "", without_fences)
    assert "script" in outside
    assert not re.search(r"(?<!\\)[<>]", outside)


def test_a_name_with_a_bar_keeps_its_row(tmp_path: Path) -> None:
    text = written(tmp_path, settings={"a|b": "c|d"})
    assert r"| `a\|b` | `c\|d` |" in text


def test_a_name_with_backticks_is_fenced_by_more(tmp_path: Path) -> None:
    text = written(tmp_path, settings={"x": "`` tick `"})
    assert "| `x` | ``` `` tick ` ``` |" in text


def test_a_command_with_a_fence_is_fenced_by_more(tmp_path: Path) -> None:
    assert "````sh\necho '```'\n````" in written(tmp_path, command="echo '```'")


def test_words_that_yaml_reads_otherwise_stay_words(tmp_path: Path) -> None:
    front = written(tmp_path, task="no").split("---\n")[1]
    assert yaml.safe_load(front)["tags"] == ["hubcache", "no"]


def test_the_same_record_gives_the_same_card(tmp_path: Path) -> None:
    record().write(tmp_path)
    assert write_card(RunRecord.read(tmp_path), tmp_path, REPO).read_text(encoding="utf-8") == written(tmp_path)
