"""What pipelines are given and hand back in Python: lists, columns, iterators, transformers.pipeline()'s arguments."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from hubcache import pipeline  # noqa: E402  # after the skips, as all below
from hubcache.errors import BadConfig, OfflineError, UsageError  # noqa: E402
from tests.support import tinymodels as tiny  # noqa: E402

pytestmark = pytest.mark.train

MOODS = {"id2label": {0: "NEGATIVE", 1: "POSITIVE"}, "label2id": {"NEGATIVE": 0, "POSITIVE": 1}}
TEXTS = ["good", "so bad a film"]
CONTEXT = "Ada lives in London."
SHORT = {"max_length": 6}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("inputs")
    nli = {0: "contradiction", 1: "entailment"}
    made = {
        "feature-extraction": tiny.encoder(folder / "bare", "Model"),
        "fill-mask": tiny.encoder(folder / "mask", "ForMaskedLM"),
        "sentiment-analysis": tiny.encoder(folder / "mood", "ForSequenceClassification", **MOODS),
        "ner": tiny.encoder(folder / "ner", "ForTokenClassification", id2label={0: "I-PER", 1: "I-LOC"}),
        "question-answering": tiny.encoder(folder / "qa", "ForQuestionAnswering"),
        "zero-shot-classification": tiny.encoder(
            folder / "nli", "ForSequenceClassification", id2label=nli, label2id={"contradiction": 0, "entailment": 1}
        ),
        "text-generation": tiny.gpt(folder / "gpt"),
        "summarization": tiny.bart(folder / "bart", "ForConditionalGeneration"),
    }
    return {task: str(place) for task, place in made.items()}


@pytest.fixture(scope="module")
def pipes(folders: dict[str, str]) -> dict[str, Any]:
    torch.set_num_threads(1)
    return {task: pipeline(task, folder) for task, folder in folders.items()}


@pytest.mark.parametrize(
    "task",
    ["feature-extraction", "fill-mask", "sentiment-analysis", "ner", "question-answering", "zero-shot-classification",
     "text-generation", "summarization"],
)  # fmt: skip
def test_no_texts_have_no_answers(pipes: dict[str, Any], task: str) -> None:
    options = {"candidate_labels": ["a"]} if task.startswith("zero") else {}
    assert pipes[task]([], **options) == []


@pytest.mark.parametrize("task", ["sentiment-analysis", "summarization"])
@pytest.mark.parametrize("form", [iter, lambda texts: (text for text in texts), lambda texts: map(str, texts)])
def test_an_iterator_is_answered_as_its_texts_are(pipes: dict[str, Any], task: str, form: Any) -> None:
    options = SHORT if task == "summarization" else {}
    made = list(pipes[task](form(TEXTS), **options))
    first = pipes[task](TEXTS[:1], **options)
    assert len(made) == 2
    assert (made[0] if isinstance(made[0], list) else [made[0]])[0].keys() == first[0].keys()


@pytest.mark.parametrize("task", ["sentiment-analysis", "summarization", "feature-extraction"])
def test_a_column_of_a_data_set_is_answered_as_a_list(pipes: dict[str, Any], task: str) -> None:
    datasets = pytest.importorskip("datasets")
    column = datasets.Dataset.from_dict({"text": TEXTS})["text"]
    options = SHORT if task == "summarization" else {}
    assert pipes[task](column, **options) == pipes[task](TEXTS, **options)


def test_a_data_set_of_torch_is_answered_row_by_row(pipes: dict[str, Any]) -> None:
    from transformers.pipelines.pt_utils import KeyDataset

    rows = [{"text": text} for text in TEXTS]
    made = list(pipes["sentiment-analysis"](KeyDataset(rows, "text")))
    assert [one["label"] for one in made] == [one["label"] for one in pipes["sentiment-analysis"](TEXTS)]


def test_a_batch_size_changes_no_label(pipes: dict[str, Any]) -> None:
    pipe = pipes["sentiment-analysis"]
    assert [one["label"] for one in pipe(TEXTS * 3, batch_size=4)] == [one["label"] for one in pipe(TEXTS * 3)]


@pytest.mark.parametrize("strategy", ["simple", "first", "average", "max", "none"])
def test_entities_are_grouped_as_transformers_own_pipeline_does(
    pipes: dict[str, Any], folders: dict[str, str], strategy: str
) -> None:
    from transformers import pipeline as theirs

    text = "Ada Lovelace of Marylebone lives unbelievably"
    made = pipes["ner"](text, aggregation_strategy=strategy)
    wanted = theirs("ner", folders["ner"], aggregation_strategy=strategy)(text)
    assert [{**one, "score": pytest.approx(one["score"], rel=1e-5)} for one in wanted] == made


def test_an_unknown_strategy_is_refused_with_the_known_ones(pipes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="no aggregation_strategy 'best'"):
        pipes["ner"]("x", aggregation_strategy="best")


@pytest.mark.parametrize("name", ["data", "X"])
def test_a_question_may_stand_under_transformers_4s_old_names(pipes: dict[str, Any], name: str) -> None:
    asked = {"question": "who", "context": CONTEXT}
    assert pipes["question-answering"](**{name: asked}) == pipes["question-answering"](asked)


@pytest.mark.parametrize(("given", "lacks"), [({"question": "who"}, "context"), ({"context": CONTEXT}, "question")])
def test_half_a_question_is_refused_by_what_it_lacks(pipes: dict[str, Any], given: dict[str, str], lacks: str) -> None:
    with pytest.raises(UsageError, match=f"there is no {lacks}"):
        pipes["question-answering"](**given)


def test_one_context_serves_several_questions(pipes: dict[str, Any]) -> None:
    made = pipes["question-answering"](question=["who", "where"], context=CONTEXT)
    assert [CONTEXT[one["start"] : one["end"]] == one["answer"] for one in made] == [True, True]


def test_zero_shot_takes_labels_in_a_text(pipes: dict[str, Any]) -> None:
    pipe = pipes["zero-shot-classification"]
    assert pipe("x", candidate_labels="a, b") == pipe("x", candidate_labels=["a", "b"])


def test_scores_of_several_labels_are_each_their_own(pipes: dict[str, Any]) -> None:
    said = pipes["zero-shot-classification"]("x", ["a", "b"], multi_label=True, hypothesis_template="It is {}.")
    assert sum(said["scores"]) != pytest.approx(1.0)


@pytest.mark.parametrize("told", [{}, {"return_text": False}, {"return_text": True}])
def test_ids_come_for_texts_where_tensors_are_asked(pipes: dict[str, Any], told: dict[str, bool]) -> None:
    [made] = pipes["summarization"]("x", return_tensors=True, **told, **SHORT)
    assert list(made) == ["summary_token_ids"]


def test_a_minimum_length_is_kept(pipes: dict[str, Any]) -> None:
    [made] = pipes["summarization"]("x", return_tensors=True, min_length=5, max_length=8, num_beams=2)
    assert 5 <= len(made["summary_token_ids"]) <= 8


def test_several_sequences_are_a_list_for_each_text(pipes: dict[str, Any]) -> None:
    made = pipes["summarization"](TEXTS, num_beams=2, num_return_sequences=2, **SHORT)
    assert [[list(one) for one in each] for each in made] == [[["summary_text"]] * 2] * 2


# What transformers.pipeline() takes beside the pipeline's own options.


@pytest.mark.parametrize(
    "told",
    [{"use_fast": True}, {"token": "x"}, {"device_map": "auto"}, {"framework": "pt"}, {"trust_remote_code": False},
     {"config": None}, {"model_kwargs": {}}, {"feature_extractor": None}, {"dtype": "auto"}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("task", ["ner", "summarization"])
def test_an_argument_of_loading_that_changes_nothing_is_taken(
    folders: dict[str, str], task: str, told: dict[str, Any]
) -> None:
    options = SHORT if task == "summarization" else {}
    assert pipeline(task, folders[task], **told)("x", **options)


@pytest.mark.parametrize("told", [{"dtype": torch.bfloat16}, {"torch_dtype": "bfloat16"}], ids=str)
def test_the_type_of_numbers_is_the_models(folders: dict[str, str], told: dict[str, Any]) -> None:
    assert pipeline("sentiment-analysis", folders["sentiment-analysis"], **told).model.dtype is torch.bfloat16


def test_a_revision_is_the_repos(tmp_path: Path, folders: dict[str, str]) -> None:
    copied = shutil.copytree(folders["sentiment-analysis"], tmp_path / "mood")
    tiny.put(tmp_path / "hub", "my/mood", copied)
    with pytest.raises(OfflineError, match="nosuch"):
        pipeline("sentiment-analysis", "my/mood", revision="nosuch", cache_dir=tmp_path / "hub")


@pytest.mark.parametrize(
    "told",
    [{"trust_remote_code": True}, {"framework": "tf"}, {"model_kwargs": {"attn_implementation": "eager"}},
     {"config": "x"}, {"dtype": "int8"}, {"device": "cuda:99"}, {"revision": "main", "model": None}],
    ids=str,
)  # fmt: skip
def test_an_argument_of_loading_that_is_not_done_is_refused(folders: dict[str, str], told: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        pipeline("ner", **{"model": folders["ner"], **told})


def test_a_model_in_memory_needs_its_tokenizer(pipes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="without a tokenizer"):
        pipeline("ner", pipes["ner"].model)


@pytest.mark.parametrize("kept", [0, 100, -10])
def test_weights_that_are_cut_short_are_told(tmp_path: Path, folders: dict[str, str], kept: int) -> None:
    folder = shutil.copytree(folders["ner"], tmp_path / "ner")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(UsageError, match="ner"):
        pipeline("ner", str(folder))


def test_a_folder_without_a_vocabulary_is_told(tmp_path: Path, folders: dict[str, str]) -> None:
    folder = shutil.copytree(
        folders["ner"], tmp_path / "ner", ignore=shutil.ignore_patterns("tokenizer*", "vocab*", "special*")
    )
    with pytest.raises(BadConfig, match=r"vocabulary|tokenizer"):
        pipeline("ner", str(folder))


@pytest.mark.parametrize(
    ("task", "folder", "told"),
    [
        ("ner", "sentiment-analysis", "is a model for text-classification"),
        ("question-answering", "ner", "is a model for token-classification"),
        ("sentiment-analysis", "fill-mask", "has no trained head"),
        ("fill-mask", "feature-extraction", "has no trained head"),
    ],
)
def test_a_model_of_another_task_is_refused(folders: dict[str, str], task: str, folder: str, told: str) -> None:
    with pytest.raises(UsageError, match=told):
        pipeline(task, folders[folder])
