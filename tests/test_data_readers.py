"""Readers take files as people have them, and tell file and line where they cannot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hubcache.errors import UsageError
from hubcache.train.data import Choices, held_out_rows, load_splits, read_table, read_task_data
from hubcache.train.data.files import card_class_names, split_of
from hubcache.train.data.reading import class_names
from hubcache.train.data.splits import parsed_split, sliced
from hubcache.train.tasks import load_task
from tests.support.goldens import ROOT

DATA = ROOT.parent / "shared/data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"{DATA} is not there")

# Set, task, text column, label column (found by itself for generic tasks), number of labels.
SETS = [
    ("rotten_tomatoes", "rotten_tomatoes", "text", "label", 2),
    ("banking77", "text-classification", "text", "category", 77),
    ("klue_ynat", "klue_tc", "title: {title}", "label", 8),
    ("klue_nli", "klue_nli", "premise: {premise} hypothesis: {hypothesis}", "label", 3),
    ("klue_sts", "klue_sts_reg", "sentence1: {sentence1} sentence2: {sentence2}", "labels.real-label", 0),
    ("klue_ner", "klue_ner", "tokens", "ner_tags", 13),
    ("klue_re", "klue_re", "text: {marked}", "label", 30),
    ("klue_mrc", "klue_mrc", "context", "answers", 0),
    ("kor_3i4k", "kor_3i4k", "text: {text}", "label", 7),
    ("wnut17", "wnut17", "tokens", "ner_tags", 13),
    ("uner_zh_gsdsimp", "ner", "tokens", "ner_tags", 7),
    ("cmrc2018", "cmrc2018", "context", "answers", 0),
    ("xquad_en", "squad", "context", "answers", 0),
    ("tatoeba_en_fr", "translation", "en", "fr", 0),
    ("tatoeba_en_ko", "translation", "en", "ko", 0),
    ("csl_title_zh", "summarization", "abstract", "title", 0),
    ("csl_category_zh", "text-classification", "title", "category", 13),
    ("sae4k_ko", "summarization", "sentence", "keyphrase", 0),
    ("scitldr_a", "summarization", "source", "target", 0),
    ("stsb_en_images", "stsb", "sentence1", "score", 0),
    ("query_wellformedness", "regression", "content", "rating", 0),
    ("med_nli_en", "text-classification", "sentence1", "gold_label", 2),
    ("question_pair_ko", "qqp", "question1", "is_duplicate", 2),
    ("movie_reviews_long", "text-classification", "text", "label", 2),
]
SAMPLES = [
    ("tnews.jsonl", "tnews"),
    ("afqmc.jsonl", "afqmc"),
    ("iflytek.jsonl", "iflytek"),
    ("cmnli.jsonl", "cmnli"),
    ("cluewsc2020.jsonl", "cluewsc2020"),
    ("csl.jsonl", "csl"),
    ("cluener.jsonl", "cluener"),
    ("c3.json", "c3"),
    ("chid.jsonl", "chid"),
    ("cmrc2018.json", "cmrc2018"),
    ("dureader_qg.jsonl", "dureader_qg"),
    ("lcsts.jsonl", "lcsts"),
]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


@needs_data
@pytest.mark.parametrize(("folder", "name", "text", "label", "labels"), SETS)
def test_a_real_set_is_read_for_its_task(folder: str, name: str, text: str, label: str, labels: int) -> None:
    found = read_task_data(load_task(name), DATA / folder)
    assert (found.task.text, found.task.label, len(found.task.labels)) == (text, label, labels)
    assert all(found.rows[split] for split in ("train", "validation", "test"))


@needs_data
@pytest.mark.parametrize(("file", "name"), SAMPLES)
def test_a_clue_record_is_laid_out_for_its_task(file: str, name: str) -> None:
    found = read_task_data(load_task(name), DATA / "clue_format_samples" / file, Choices(held_out=0.0))
    assert all(column in found.rows["train"][0] for column in (*found.task.columns, *found.task.label_columns))


@needs_data
def test_what_was_found_is_said() -> None:
    said = "\n".join(read_task_data(load_task("text-classification"), DATA / "csl_category_zh").said)
    assert "train.jsonl: 2800 rows" in said
    assert "label: column category" in said
    assert "13 labels found in category: 军事学" in said


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "json"])
def test_formats_give_the_same_rows(tmp_path: Path, ending: str) -> None:
    rows = [{"text": "a b", "label": "x"}, {"text": "ü 漢", "label": "y"}]
    content = {
        "csv": "text,label\na b,x\nü 漢,y\n",
        "tsv": "text\tlabel\na b\tx\nü 漢\ty\n",
        "jsonl": lines(rows),
        "json": json.dumps(rows),
    }
    assert read_table(written(tmp_path / f"d.{ending}", content[ending])).rows == rows


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl"])
def test_a_byte_order_mark_and_windows_line_ends_are_no_matter(tmp_path: Path, ending: str) -> None:
    plain = {
        "csv": 'text,label\n"a, b",x\n',
        "tsv": "text\tlabel\na, b\tx\n",
        "jsonl": '{"text": "a, b", "label": "x"}\n',
    }
    content = b"\xef\xbb\xbf" + plain[ending].replace("\n", "\r\n").encode()
    assert read_table(written(tmp_path / f"d.{ending}", content)).rows == [{"text": "a, b", "label": "x"}]


def test_a_quoted_csv_cell_may_hold_lines_and_quotes(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", 'text,label\n"one\ntwo ""three""",x\n\n')
    assert read_table(path).rows == [{"text": 'one\ntwo "three"', "label": "x"}]


def test_quotes_in_tsv_are_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "d.tsv", 'text\tlabel\n"half open\tx\n')
    assert read_table(path).rows == [{"text": '"half open', "label": "x"}]


def test_a_semicolon_separates_where_there_are_more_of_them(tmp_path: Path) -> None:
    assert read_table(written(tmp_path / "d.csv", "text;label\na, b;x\n")).rows == [{"text": "a, b", "label": "x"}]


@pytest.mark.parametrize(("name", "content", "line", "said"), [
    ("d.csv", "text,label\na,x\nb,c,y\n", 3, "3 cells, but the header has 2"),
    ("d.tsv", "text\tlabel\na\tx\n\nb\n", 4, "1 cells"),
    ("d.jsonl", '{"a": 1}\n{"a": 1,}\n', 2, "no JSON"),
    ("d.jsonl", '{"a": 1}\n3\n', 2, "a row is an object"),
    ("d.json", '[{"a": 1}\n, }', 2, "no JSON"),
    ("d.conll", "a O\nb B-X\n\nc O x\n", 4, "3 columns, but the first line has 2"),
    ("d.conll", "word\n", 1, "a token without a tag"),
    ("d.csv", b"text,label\nok,x\n\xff\xfe,y\n", 3, "no UTF-8"),
])  # fmt: skip
def test_a_mistake_is_told_with_file_and_line(
    tmp_path: Path, name: str, content: str | bytes, line: int, said: str
) -> None:
    path = written(tmp_path / name, content)
    with pytest.raises(UsageError) as failed:
        read_table(path)
    assert failed.value.message.startswith(f"{path}:{line}: ")
    assert said in failed.value.message


def test_an_ending_that_no_reader_knows_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no reader for \.xlsx"):
        read_table(written(tmp_path / "d.xlsx", "x"))


def test_parquet_without_pyarrow_names_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(UsageError) as failed:
        read_table(written(tmp_path / "d.parquet", b"PAR1"))
    assert failed.value.hint == "run: pip install pyarrow"


def test_parquet_is_read_with_its_class_names(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    features = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}}
    table = arrow.table({"text": ["a", "b"], "label": [0, 1]})
    path = tmp_path / "train-00000-of-00001.parquet"
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(features)}), path)
    found = read_task_data(load_task("text-classification"), tmp_path, Choices(held_out=0.0))
    assert found.task.labels == ("neg", "pos")


def test_class_names_are_found_within_lists() -> None:
    inner = {"feature": {"names": ["O", "B-X"], "_type": "ClassLabel"}, "_type": "Sequence"}
    assert class_names({"ner_tags": inner, "text": {"dtype": "string"}}) == {"ner_tags": ("O", "B-X")}


CONLL = [{"tokens": ["EU", "rejects"], "ner_tags": ["B-ORG", "O"]}, {"tokens": ["#"], "ner_tags": ["O"]}]


@pytest.mark.parametrize("content", [
    "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n# X O O\n",
    "# sent_id = 1\n# text = EU rejects\n1\tEU\tB-ORG\t-\t-\n2\trejects\tO\t-\t-\n\n# text = #\n1\t#\tO\t-\t-\n",
    "EU\tB-ORG\r\nrejects\tO\r\n\r\n#\tO\r\n",
])  # fmt: skip
def test_conll_columns_are_found(tmp_path: Path, content: str) -> None:
    assert read_table(written(tmp_path / "d.conll", content)).rows == CONLL


def test_conll_without_a_known_ending_is_recognised(tmp_path: Path) -> None:
    content = "EU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n# X O O\n\n"
    assert read_table(written(tmp_path / "eng.testa", content)).rows == CONLL


@pytest.mark.parametrize(("task", "content", "text", "pair", "label"), [
    ("text-classification", "good film\tpos\nbad film\tneg\n", "column1", "", "column2"),
    ("text-classification", "a b\tc d\t1\ne f\tg h\t0\n", "column1", "column2", "column3"),
    ("regression", "a b\tc d\t0.5\ne f\tg h\t3.5\n", "column1", "column2", "column3"),
    ("qqp", "a b\tc d\t1\ne f\tg h\t0\n", "column1", "column2", "column3"),
    ("sst2", "good film\t1\nbad film\t0\n", "column1", "", "column2"),
    ("weather", "今天天气很好，我们去公园散步吧。\t公园散步\n", "column1", "", "column2"),
    ("token-classification", "I have a cat\tO O O B-ANI\n", "column1", "", "column2"),
])  # fmt: skip
def test_tab_separated_lines_without_header_stand_in_the_usual_order(
    tmp_path: Path, task: str, content: str, text: str, pair: str, label: str
) -> None:
    for name in ("train.tsv", "train.txt"):
        found = read_task_data(load_task(task), written(tmp_path / name, content), Choices(held_out=0.0)).task
        assert (found.text, found.pair, found.label) == (text, pair, label)


def test_a_first_line_with_usual_names_is_a_header(tmp_path: Path) -> None:
    path = written(tmp_path / "d.tsv", "Sentence1\tSentence2\tscore\na\tb\t1\n")
    found = read_task_data(load_task("stsb"), path, Choices(held_out=0.0)).task
    assert (found.text, found.pair, found.label) == ("Sentence1", "Sentence2", "score")


def test_columns_are_named_by_the_user(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", "id,remark,verdict\n1,fine,yes\n2,poor,no\n")
    chosen = Choices(columns={"text": "remark", "label": "verdict"}, held_out=0.0)
    found = read_task_data(load_task("sst2"), path, chosen).task
    assert (found.text, found.label) == ("remark", "verdict")


def test_a_column_that_cannot_be_found_is_told_with_those_there_are(tmp_path: Path) -> None:
    path = written(tmp_path / "d.csv", "id,remark,verdict\n1,fine,yes\n2,poor,no\n")
    with pytest.raises(UsageError) as failed:
        read_task_data(load_task("mnli"), path)
    assert "'premise'" in failed.value.message
    assert "id, remark, verdict" in failed.value.hint


@pytest.mark.parametrize(("name", "split"), [
    ("train.jsonl", "train"), ("dev_matched.tsv", "validation_matched"), ("eng.testb", "test"),
    ("klue-nli-v1.1_dev.json", "validation"), ("train-00000-of-00002.parquet", "train"), ("data.csv", ""),
    ("validation_mismatched.csv", "validation_mismatched"), ("contest.csv", ""),
])  # fmt: skip
def test_a_files_name_says_its_split(name: str, split: str) -> None:
    assert split_of(name) == split


def test_a_folder_of_shards_and_licences_is_read_by_split(tmp_path: Path) -> None:
    for shard in (0, 1):
        written(tmp_path / f"data/train-0000{shard}-of-00002.jsonl", lines([{"text": f"t{shard}", "label": shard}]))
    written(tmp_path / "data/test-00000-of-00001.jsonl", lines([{"text": "x", "label": 0}]))
    written(tmp_path / "LICENSE.txt", "all rights")
    splits = load_splits(tmp_path, held_out=0.0)
    assert [row["text"] for row in splits.rows["train"]] == ["t0", "t1"]
    assert [path.name for path in splits.files][-1] == "test-00000-of-00001.jsonl"


def test_a_config_names_the_folder_within(tmp_path: Path) -> None:
    written(tmp_path / "en/train.jsonl", lines([{"text": "a", "label": 0}]))
    written(tmp_path / "fr/train.jsonl", lines([{"text": "b", "label": 0}]))
    assert load_splits(tmp_path, config="fr", held_out=0.0).rows["train"][0]["text"] == "b"
    with pytest.raises(UsageError) as failed:
        load_splits(tmp_path)
    assert "en, fr" in failed.value.hint


CARD = """---
configs:
- config_name: plain
  default: true
  data_files:
  - {split: train, path: plain/tr*.jsonl}
  - {split: test, path: plain/te*.jsonl}
- config_name: other
  data_files: other/*.jsonl
dataset_info:
- config_name: plain
  features:
  - name: label
    dtype: {class_label: {names: {'0': no, '1': yes, '10': maybe}}}
  - name: tags
    sequence: {class_label: {names: [O, B-X]}}
---
# A data set
"""


def test_a_snapshots_card_names_files_and_classes(tmp_path: Path) -> None:
    written(tmp_path / "README.md", CARD.replace("no,", "'no',").replace("yes,", "'yes',"))
    written(tmp_path / "plain/tr.jsonl", lines([{"text": "a", "label": 1}, {"text": "b", "label": 0}]))
    written(tmp_path / "plain/te.jsonl", lines([{"text": "c", "label": 0}]))
    written(tmp_path / "other/x.jsonl", lines([{"text": "d", "label": 0}]))
    found = read_task_data(load_task("text-classification"), tmp_path, Choices(held_out=0.0))
    assert found.task.labels == ("no", "yes", "maybe")
    assert len(found.rows["test"]) == 1
    assert card_class_names(tmp_path, "plain")["tags"] == ("O", "B-X")
    assert len(load_splits(tmp_path, config="other", held_out=0.0).rows["train"]) == 1


def test_a_list_of_files_is_training_data(tmp_path: Path) -> None:
    paths = [written(tmp_path / f"{name}.jsonl", lines([{"text": name, "label": 0}])) for name in ("dev", "b")]
    assert [row["text"] for row in load_splits(paths, held_out=0.0).rows["train"]] == ["dev", "b"]


@pytest.mark.parametrize(("text", "kept"), [
    ("train[:90%]", range(18)), ("train[90%:]", range(18, 20)), ("train[2:4]", range(2, 4)),
    ("train[-3:]", range(17, 20)), ("train", range(20)), ("train[:5%]", range(1)),
])  # fmt: skip
def test_a_split_is_sliced_by_rows_or_per_cent(text: str, kept: range) -> None:
    rows = [{"n": number} for number in range(20)]
    [(_, begin, end)] = parsed_split(text)
    assert [row["n"] for row in sliced(rows, begin, end)] == list(kept)


def test_splits_are_added_up(tmp_path: Path) -> None:
    for name in ("train", "validation"):
        written(tmp_path / f"{name}.jsonl", lines([{"text": name, "label": 0}]))
    assert len(load_splits(tmp_path, {"train": "train+validation"}).rows["train"]) == 2


@pytest.mark.parametrize("text", ["train[", "train[:90%", "[3:]", "train[a:b]", ""])
def test_what_is_no_split_is_told(text: str) -> None:
    with pytest.raises(UsageError, match="is no split"):
        parsed_split(text)


def test_a_split_that_is_not_there_is_told_the_nearest(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl", lines([{"text": "a", "label": 0}]))
    with pytest.raises(UsageError) as failed:
        load_splits(tmp_path, {"train": "trian"})
    assert "train" in failed.value.hint


def test_mnli_takes_its_matched_validation(tmp_path: Path) -> None:
    row = {"premise": "a", "hypothesis": "b", "label": 0}
    for name in ("train", "validation_matched", "validation_mismatched"):
        written(tmp_path / f"{name}.jsonl", lines([{**row, "premise": name}]))
    found = read_task_data(load_task("mnli"), tmp_path, Choices(splits={"test": "validation_mismatched"}))
    assert found.rows["validation"][0]["premise"] == "validation_matched"
    assert found.rows["test"][0]["premise"] == "validation_mismatched"


def test_the_same_rows_are_held_out_in_any_order() -> None:
    rows = [{"text": f"row {number}", "label": number % 2} for number in range(1000)]
    _, first = held_out_rows(rows, 0.1)
    _, second = held_out_rows(rows[::-1], 0.1)
    assert sorted(row["text"] for row in first) == sorted(row["text"] for row in second)
    assert 70 < len(first) < 130


def test_equal_rows_are_held_out_together() -> None:
    rows = [{"text": f"row {number % 50}", "label": 0} for number in range(200)]
    kept, out = held_out_rows(rows, 0.3)
    assert not {row["text"] for row in kept} & {row["text"] for row in out}


CELLS = st.text(st.characters(exclude_characters="\t\n\r\x00", exclude_categories=["Cs"]), min_size=1).filter(str.strip)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5))
def test_any_cells_come_back_from_tsv_csv_and_jsonl(tmp_path: Path, rows: list[tuple[str, str]]) -> None:
    import csv
    import io

    expected = [{"text": text, "label": label} for text, label in rows]
    out = io.StringIO()
    csv.writer(out).writerows([("text", "label"), *rows])
    assert read_table(written(tmp_path / "d.csv", out.getvalue())).rows == expected
    assert read_table(written(tmp_path / "d.jsonl", lines(expected))).rows == expected
    tsv = "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *rows])
    assert read_table(written(tmp_path / "d.tsv", tsv)).rows == expected


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(content=st.binary(max_size=200), ending=st.sampled_from(["csv", "tsv", "txt", "jsonl", "json", "conll", "xyz"]))
def test_any_bytes_are_rows_or_told(tmp_path: Path, content: bytes, ending: str) -> None:
    path = written(tmp_path / f"d.{ending}", content)
    try:
        assert isinstance(read_table(path).rows, list)
    except UsageError as error:
        assert str(path) in error.message  # noqa: PT017 - either outcome is right
