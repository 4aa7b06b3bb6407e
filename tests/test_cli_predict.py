"""`hubcache predict` as people call it: offline, on small models made here; most calls share the tests' process."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from hubcache.demo.models import tiny_bert
from tests.support.commandline import HUBCACHE, CommandLine, Ran
from tests.test_cli_finetune import Home, make_home

pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.support import tinymodels as tiny  # after the skips: it imports torch
from tests.support.inprocess import InProcess

pytestmark = [pytest.mark.slow, pytest.mark.train]

MODEL = "local/tiny"


class Process(CommandLine):
    """The command in a process of its own over another's cache and environment."""

    def __init__(self, other: CommandLine) -> None:
        self.cache, self.home, self.environ = other.cache, other.home, other.environ


@pytest.fixture(scope="module")
def hubcache(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder = tmp_path_factory.mktemp("predict")
    source = folder / "tiny"
    source.mkdir()
    for path, content in tiny_bert(7).items():
        (source / path).write_bytes(content)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    command = InProcess(
        folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), TOKENIZERS_PARALLELISM="false"
    )
    pulled = command("pull", source, "--as", MODEL)
    assert pulled.code == 0, pulled.err
    return command


def test_a_line_of_json_for_each_text_in_their_order(hubcache: CommandLine, tmp_path: Path) -> None:
    texts = ["a very long day in the room and so the people", "day", "the movie was good"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    ran = hubcache("predict", "feature-extraction", MODEL, "--file", tmp_path / "texts.txt")
    assert ran.code == 0, ran.err
    lengths = [len(json.loads(line)[0]) for line in ran.out.splitlines()]
    assert len(lengths) == 3
    assert lengths[0] > lengths[2] > lengths[1]


def test_the_model_comes_from_the_cache_and_stderr_says_which(hubcache: CommandLine) -> None:
    ran = hubcache("predict", "feature-extraction", "auto", "the movie")
    assert ran.code == 0, ran.err
    assert f"taking {MODEL} from the cache" in ran.err
    assert len(ran.out.splitlines()) == 1


def test_a_model_that_is_not_cached_is_refused_with_the_pull_that_brings_it(hubcache: CommandLine) -> None:
    ran = hubcache("predict", "ner", "org/none", "a text")
    assert ran.code == 5
    assert "hubcache pull org/none" in ran.err


def test_help_fits_80_columns(hubcache: CommandLine) -> None:
    ran = Process(hubcache)("predict", "--help", COLUMNS="80")
    assert max(map(len, ran.out.splitlines())) <= 80


def test_a_process_answers_and_ends_with_0(hubcache: CommandLine) -> None:
    ran = Process(hubcache)("predict", "feature-extraction", MODEL, "the movie")
    assert (ran.code, len(ran.out.splitlines()), ran.err) == (0, 1, "")


def test_a_reader_that_leaves_early_ends_it_without_a_word(hubcache: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "texts.txt").write_text("the movie\n" * 2000, "utf-8")
    command = [HUBCACHE, "predict", "feature-extraction", MODEL, "--file", str(tmp_path / "texts.txt")]
    piped = subprocess.Popen(command, env=hubcache.environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert piped.stdout is not None
    assert piped.stderr is not None
    piped.stdout.readline()
    piped.stdout.close()
    assert (piped.stderr.read(), piped.wait(60)) == ("", 1)
    piped.stderr.close()


def test_ctrl_c_ends_it_with_130_and_no_traceback(hubcache: CommandLine) -> None:
    command = [HUBCACHE, "predict", "feature-extraction", MODEL, "-"]
    waiting = subprocess.Popen(
        command, env=hubcache.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert waiting.stdin is not None
    assert waiting.stdout is not None
    # More than the first window of texts, so that an answer says that it is reading.
    waiting.stdin.write("the movie\n" * 70)
    waiting.stdin.flush()
    waiting.stdout.readline()
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, "Traceback" in err) == (130, False)


# Each task of the course once, and what it prints.

CONTEXT = "Ada lives in London and works with Charles."
QUESTION = {"question": "Where does Ada live?", "context": CONTEXT}
MOODS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
ENTAILS = ["contradiction", "neutral", "entailment"]
WHERE = {"score", "word", "start", "end"}
TAGS = ["I-PER", "I-LOC", "I-ORG"]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    """Make a cache with a model for each task."""
    folder = tmp_path_factory.mktemp("zoo")
    command = InProcess(folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), OMP_NUM_THREADS="1")
    made = {
        "my/bare": tiny.encoder(folder / "bare", "Model"),
        "my/mask": tiny.encoder(folder / "mask", "ForMaskedLM"),
        "my/mood": tiny.encoder(folder / "mood", "ForSequenceClassification", **MOODS),
        "my/nli": tiny.encoder(
            folder / "nli", "ForSequenceClassification", id2label=dict(enumerate(ENTAILS)),
            label2id={name: number for number, name in enumerate(ENTAILS)},
        ),
        "my/ner": tiny.encoder(folder / "ner", "ForTokenClassification", id2label=dict(enumerate(TAGS))),
        "my/qa": tiny.encoder(folder / "qa", "ForQuestionAnswering"),
        "my/gpt": tiny.gpt(folder / "gpt"),
        "my/bart": tiny.bart(folder / "bart", "ForConditionalGeneration"),
    }  # fmt: skip
    for name, place in made.items():
        tiny.put(command.cache, name, place)
    return command


def lines(ran: Ran) -> list[Any]:
    assert ran.code == 0, ran.err
    return [json.loads(line) for line in ran.out.splitlines()]


def names(results: list[Any]) -> list[set[str]]:
    """Return the keys of what each line is, or of the first of its list."""
    return [set(result[0] if isinstance(result, list) else result) for result in results]


@pytest.mark.parametrize(
    ("task", "model", "texts", "options", "keys"),
    [
        ("sentiment-analysis", "mood", ["good", "so bad a film"], (), {"label", "score"}),
        ("zero-shot-classification", "nli", ["a lecture"], ("--labels", "a, b"), {"sequence", "labels", "scores"}),
        ("text-generation", "gpt", ["In this", "We"], ("--set", "max_new_tokens=4"), {"generated_text"}),
        ("fill-mask", "mask", ["a [MASK] film"], ("--set", "top_k=2"), {"score", "token", "token_str", "sequence"}),
        ("ner", "ner", [CONTEXT], ("--set", "grouped_entities=true"), {"entity_group", *WHERE}),
        ("question-answering", "qa", ["Where?", "Who?"], ("--context", CONTEXT), {"score", "start", "end", "answer"}),
        ("summarization", "bart", ["a text", "another"], ("--set", "max_length=8"), {"summary_text"}),
        ("translation_en_to_fr", "bart", ["a text"], ("--set", "max_length=8"), {"translation_text"}),
        ("text2text-generation", "bart", ["a text"], ("--set", "max_length=8"), {"generated_text"}),
    ],
)  # fmt: skip
def test_a_task_prints_a_line_of_its_own_keys_for_each_text(
    zoo: CommandLine, task: str, model: str, texts: list[str], options: tuple[str, ...], keys: set[str]
) -> None:
    assert names(lines(zoo("predict", task, f"my/{model}", *texts, *options))) == [keys] * len(texts)


def test_features_are_printed_as_numbers(zoo: CommandLine) -> None:
    [[rows_of_one]] = lines(zoo("predict", "feature-extraction", "my/bare", "good"))
    assert [len(row) for row in rows_of_one] == [32] * 3


def test_lines_of_stdin_are_answered_one_each(zoo: CommandLine) -> None:
    asked = '{"question": "Who?", "context": "Ada lives here."}\n\n' + json.dumps(QUESTION) + "\n"
    command = [HUBCACHE, "predict", "question-answering", "my/qa", "-"]
    done = subprocess.run(
        command, input=asked, env=zoo.environ, capture_output=True, text=True, timeout=120, check=True
    )
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["answer"] for one in said] == [
        context[one["start"] : one["end"]] for one, context in zip(said, ("Ada lives here.", CONTEXT), strict=True)
    ]


def test_rows_of_a_data_set_are_answered_by_their_question_and_context(zoo: CommandLine, tmp_path: Path) -> None:
    row = {**QUESTION, "id": "1", "title": "Ada", "answers": {"text": ["London"], "answer_start": [13]}}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    [from_row] = lines(zoo("predict", "question-answering", "my/qa", "--file", tmp_path / "rows.jsonl"))
    [alone] = lines(zoo("predict", "question-answering", "my/qa", QUESTION["question"], "--context", CONTEXT))
    assert from_row == alone


def test_rows_of_a_data_set_are_classified_by_their_text_or_pair(zoo: CommandLine, tmp_path: Path) -> None:
    told = [{"text": "good", "label": 1}, {"text": "good", "text_pair": "bad", "label": 0}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in told), "utf-8")
    one, pair = lines(zoo("predict", "text-classification", "my/mood", "--file", tmp_path / "rows.jsonl"))
    [alone] = lines(zoo("predict", "text-classification", "my/mood", "good"))
    assert (one["label"], one["score"]) == (alone["label"], pytest.approx(alone["score"], rel=1e-4))
    assert pair["score"] != pytest.approx(one["score"], rel=1e-4)


# Adapters.


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Home:
    home = make_home(tmp_path_factory.mktemp("tuned"))
    fast = ("--set", "learning_rate=1e-2", "--adapter", "houlsby", "--output", "me/houlsby")
    ran = home.finetune(*fast, OMP_NUM_THREADS="1")
    assert ran.code == 0, ran.err
    return home


def test_an_adapter_answers_over_its_base_with_its_own_labels(tuned: Home) -> None:
    file = tuned.data / "test.jsonl"
    told = [json.loads(line)["label"] for line in file.read_text("utf-8").splitlines()]
    said = lines(tuned.hubcache("predict", "text-classification", "me/houlsby", "--file", file))
    scored = tuned.hubcache("evaluate", "me/houlsby", "--task", "text-classification", "--data", tuned.data, "--json")
    accuracy = sum(one["label"] == label for one, label in zip(said, told, strict=True)) / len(told)
    assert {one["label"] for one in said} <= {"good", "bad"}
    assert accuracy == pytest.approx(scored.facts["metrics"]["test"]["accuracy"])


def test_an_adapter_whose_base_is_not_cached_is_refused_with_the_pull_that_brings_it(
    tuned: Home, tmp_path: Path
) -> None:
    other = InProcess(tmp_path, HF_HUB_OFFLINE="1")
    folder = tuned.hubcache("path", "me/houlsby").out.strip()
    ran = other("predict", "text-classification", folder, "good")
    assert ran.code == 5
    assert "hubcache pull local/tiny" in ran.err
