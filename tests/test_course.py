"""The scripts of a course on transformers, pipelines and training loops: each a process that can connect nowhere."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.support import tinymodels as tiny  # noqa: E402  # after the skips: it imports torch
from tests.support.commandline import CommandLine  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[1]
RUNNER = """
import runpy, sys
from tests.support.finetuning import refuse_connections
refuse_connections()
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""
MOODS = {0: "NEGATIVE", 1: "POSITIVE"}
ENTAILS = {0: "contradiction", 1: "neutral", 2: "entailment"}
TAGS = dict(enumerate(["O", "I-PER", "I-LOC", "I-ORG"]))


def labels(names: dict[int, str]) -> dict[str, Any]:
    return {"id2label": names, "label2id": {name: number for number, name in names.items()}}


def run(line: CommandLine, script: str, *arguments: Path, folder: Path) -> str:
    """Run a script in a folder, blocked; return what it printed."""
    command = (sys.executable, "-c", RUNNER, ROOT / f"tests/scripts/{script}", *arguments)
    told = line(
        "exec", "--offline", "--", "sh", "-c", 'cd "$0" && exec "$@"', folder, *command,
        timeout=240, OMP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / "cli")]),
    )  # fmt: skip
    assert told.code == 0, told.err
    return told.out


# Pipelines.


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the script of the pipelines over a cache that holds a model for each; return what it printed, in order."""
    folder = tmp_path_factory.mktemp("course")
    line = CommandLine(folder)
    made = {
        "distilbert/distilbert-sst-2": tiny.encoder(folder / "mood", "ForSequenceClassification", **labels(MOODS)),
        "facebook/bart-large-mnli": tiny.bart(folder / "nli", "ForSequenceClassification", **labels(ENTAILS)),
        "distilbert/distilgpt2": tiny.gpt(folder / "gpt"),
        "distilbert/distilroberta-base": tiny.encoder(
            folder / "mask", "ForMaskedLM", family="Roberta", tokenizer=tiny.bytes_tokenizer()
        ),
        "dbmdz/bert-conll03": tiny.encoder(folder / "ner", "ForTokenClassification", **labels(TAGS)),
        "distilbert/distilbert-squad": tiny.encoder(folder / "qa", "ForQuestionAnswering"),
        "sshleifer/distilbart-cnn": tiny.bart(
            folder / "summary", "ForConditionalGeneration", task_specific_params={"summarization": {"num_beams": 2}}
        ),
        "Helsinki-NLP/opus-mt-fr-en": tiny.marian(folder / "marian"),
        "google-bert/bert-base-uncased": tiny.encoder(folder / "bare", "Model"),
    }
    for name, place in made.items():
        tiny.put(line.cache, name, place)
    told = run(line, "course_pipelines.py", folder=folder)
    # Scores of entities print as np.float32(…).
    results = [eval(text, {"np": np, "__builtins__": {}}) for text in told.splitlines()]
    return dict(
        zip(
            ["mood", "moods", "zero_shot", "text", "texts", "mask", "ner", "qa", "summary", "translation", "features"],
            results,
            strict=True,
        )
    )


def kinds(result: dict[str, Any]) -> dict[str, type]:
    return {name: type(value) for name, value in result.items()}


def test_sentiment_of_one_text_is_a_list_of_one_label(printed: Any) -> None:
    assert [kinds(one) for one in printed["mood"]] == [{"label": str, "score": float}]
    assert printed["mood"][0]["label"] in MOODS.values()


def test_sentiment_of_a_list_is_a_label_for_each(printed: Any) -> None:
    assert [kinds(one) for one in printed["moods"]] == [{"label": str, "score": float}] * 2
    assert printed["moods"][0] == pytest.approx(printed["mood"][0])


def test_zero_shot_ranks_the_candidate_labels(printed: Any) -> None:
    said = printed["zero_shot"]
    assert kinds(said) == {"sequence": str, "labels": list, "scores": list}
    assert sorted(said["labels"]) == ["business", "education", "politics"]
    assert said["scores"] == sorted(said["scores"], reverse=True)


def test_text_generation_continues_the_prompt(printed: Any) -> None:
    assert [kinds(one) for one in printed["text"]] == [{"generated_text": str}]
    assert printed["text"][0]["generated_text"].startswith("In this lesson we show you")


def test_text_generation_returns_as_many_sequences_as_asked(printed: Any) -> None:
    assert [kinds(one) for one in printed["texts"]] == [{"generated_text": str}] * 2
    # A token is a byte: max_length counts the prompt's, too.
    assert all(len(one["generated_text"]) <= 30 for one in printed["texts"])


def test_fill_mask_gives_the_best_two_tokens(printed: Any) -> None:
    assert [kinds(one) for one in printed["mask"]] == [
        {"score": float, "token": int, "token_str": str, "sequence": str}
    ] * 2
    assert printed["mask"][0]["score"] >= printed["mask"][1]["score"]


def test_ner_groups_entities(printed: Any) -> None:
    assert printed["ner"]
    for one in printed["ner"]:
        assert kinds(one) == {"entity_group": str, "score": np.float32, "word": str, "start": int, "end": int}
    assert {one["entity_group"] for one in printed["ner"]} <= {"PER", "LOC", "ORG"}


def test_a_question_has_one_answer_out_of_its_context(printed: Any) -> None:
    said = printed["qa"]
    assert kinds(said) == {"score": float, "start": int, "end": int, "answer": str}
    context = "Ada is my name and I work in London with Charles."
    assert said["answer"] == context[said["start"] : said["end"]]


def test_a_summary_is_a_list_of_one_text(printed: Any) -> None:
    assert [kinds(one) for one in printed["summary"]] == [{"summary_text": str}]


def test_a_translation_is_a_list_of_one_text(printed: Any) -> None:
    assert [kinds(one) for one in printed["translation"]] == [{"translation_text": str}]


def test_features_are_a_vector_for_each_token(printed: Any) -> None:
    [rows] = printed["features"]
    assert {len(row) for row in rows} == {tiny.ENCODER["hidden_size"]}
    assert len(rows) == len(["[CLS]", "a", "short", "text", ".", "[SEP]"])


# Training loops.


@pytest.fixture(scope="module")
def classroom(tmp_path_factory: pytest.TempPathFactory) -> tuple[CommandLine, Path, list[Path]]:
    """Make a cache that holds the base, and pairs of sentences that do or do not say the same."""
    pytest.importorskip("datasets")
    folder = tmp_path_factory.mktemp("loops")
    line = CommandLine(folder)
    tiny.put(line.cache, "google-bert/bert-base-uncased", tiny.encoder(folder / "base", "Model"))
    animals = ["cat", "dog", "horse", "bird"]
    pairs = [
        {"sentence1": f"the {one} sleeps", "sentence2": f"a {other} is asleep", "label": int(one == other)}
        for one in animals
        for other in animals
    ]
    files = [folder / "train.json", folder / "validation.json"]
    for file, rows in zip(files, (pairs * 2, pairs), strict=True):
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return line, folder, files


def test_the_trainer_trains_and_predicts_with_the_scripts_own_metrics(classroom: Any) -> None:
    pytest.importorskip("sklearn")
    line, folder, files = classroom
    told = run(line, "course_trainer.py", *files, folder=folder).splitlines()[-1]
    logits, rest = told.split(" (", 1)
    assert (logits, rest.split(")")[0]) == ("(16, 2)", "16,")
    metrics = eval(told[told.index("{") :], {"np": np, "__builtins__": {}})
    assert {"test_loss", "test_accuracy", "test_f1"} <= metrics.keys()


@pytest.mark.parametrize("script", ["course_loop.py", "course_accelerate.py"])
def test_a_loop_takes_every_step_and_ends_at_rate_zero(classroom: Any, script: str) -> None:
    line, folder, files = classroom
    told = eval(run(line, script, *files, folder=folder).splitlines()[-1], {"__builtins__": {}})
    assert (told["steps"], told["lr"], kinds(told)["loss"]) == (8, 0.0, float)
    assert 0 <= told["accuracy"] <= 1
