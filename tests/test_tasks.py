"""Tasks are data: the shipped ones are the originals', and what is wrong in a definition is told with its line."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubcache.errors import BadConfig, UsageError
from hubcache.train.metrics import METRICS
from hubcache.train.tasks import KINDS, Task, changed, head_of, load_task, shipped_tasks
from hubcache.train.tasks.labels import LabelNumbers, found_labels
from hubcache.train.tasks.template import columns_of, renamed, text_of
from tests.support.goldens import golden

# The originals' metric functions and figures under the names that hubcache.train.metrics has for them.
METRIC_NAMES = {
    "accuracy_dict": ["ke_t5_accuracy"],
    "exact_match_str_dict": ["ke_t5_exact_match_str"],
    "f1_str_dict": ["ke_t5_f1_str"],
    "pearson_corrcoef_dict": ["ke_t5_pearson"],
    "spearman_corrcoef_dict": ["ke_t5_spearman"],
    "f1_score_micro_sample_weight_dict": ["ke_t5_re_f1"],
    "token_accuracy_dict_variable_length": ["token_accuracy"],
    "char_level_f1_score_klue_dict": ["ke_t5_char_f1"],
    "bleu_dict": ["ke_t5_bleu"],
    "rouge_dict": ["rouge1", "rouge2", "rougeLsum"],
    "matthews_corrcoef_dict": ["matthews"],
}
BEST_NAMES = {
    "accuracy": "ke_t5_accuracy",
    "exact_match_str": "ke_t5_exact_match_str",
    "f1_str": "ke_t5_f1_str",
    "spearman_corrcoef": "ke_t5_spearman",
    "f1_score_micro_sample_weight": "ke_t5_re_f1",
    "token_accuracy": "token_accuracy",
    "rougeLsum": "rougeLsum",
    "matthews_corrcoef": "matthews",
}
NAMED = (
    *("sst2", "mnli", "qnli", "qqp", "mrpc", "rte", "cola", "stsb", "tnews", "csl", "cmnli", "cluewsc2020", "iflytek"),
    *("ocnli", "afqmc", "cluener", "cmrc2018", "c3", "chid", "xnli", "SST-2", "QQP", "MRPC", "SICK", "TweetEval"),
    *("GoEmotions", "CoNLL-2003", "WNUT-17", "SQuAD", "RottenTomatoes", "DuReaderQG", "DuReader-robust", "LCSTS"),
    *("text-classification", "token-classification", "summarization", "translation", "question-answering"),
    *("multiple-choice", "relation-extraction", "regression", "multi-label-classification", "text-to-text"),
)


def registry() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(golden("ket5/task_registry.json").read_text("utf-8"))
    return content


def test_every_ke_t5_task_is_shipped_with_its_data_set() -> None:
    for name, known in registry().items():
        task = load_task(name)
        assert (task.name, task.dataset, task.config or None) == (name, known["hf_path"], known["hf_name"])


def test_ke_t5_metrics_are_the_originals_and_come_first() -> None:
    for name, known in registry().items():
        expected = [ours for theirs in known["metric_fns"] for ours in METRIC_NAMES[theirs]]
        assert list(load_task(name).metrics[: len(expected)]) == expected


def test_ke_t5_tasks_choose_the_best_by_the_originals_metric() -> None:
    for name, known in registry().items():
        assert load_task(name).better_by == BEST_NAMES[known["best_metric"]]


def test_ke_t5_labels_and_problem_types_are_the_originals() -> None:
    for name, known in registry().items():
        task, info = load_task(name), known["additional_task_info"]
        config = task.model_config()
        if isinstance(info.get("id2label"), dict):
            assert {str(number): label for number, label in config["id2label"].items()} == info["id2label"]
        if "num_labels" in info:
            assert config["num_labels"] == info["num_labels"]
        if "problem_type" in info:
            assert config["problem_type"] == info["problem_type"]


def test_ke_t5_generation_settings_are_the_originals() -> None:
    for name, known in registry().items():
        for settings in known["additional_task_info"].get("task_specific_params", {}).values():
            assert load_task(name).generation == {key: value for key, value in settings.items() if key != "prefix"}


def test_ke_t5_texts_begin_with_the_originals_prefix() -> None:
    for name, known in registry().items():
        for settings in known["additional_task_info"].get("task_specific_params", {}).values():
            assert load_task(name).text.startswith(settings["prefix"].split("{")[0])


def test_a_tagger_of_150_types_has_301_labels() -> None:
    labels = load_task("nikl_ner2020").labels
    assert (len(labels), labels[79], labels[249]) == (301, "B-OGG_POLITICS", "B-PT_FLOWER")


@pytest.mark.parametrize("name", NAMED)
def test_a_task_is_found_by_its_usual_name(name: str) -> None:
    assert load_task(name).kind in KINDS


def test_every_metric_of_every_task_exists() -> None:
    assert {name for task in shipped_tasks().values() for name in task.metrics} <= set(METRICS)


def test_every_kind_has_a_generic_task() -> None:
    assert all(load_task(kind).kind == kind for kind in KINDS)


def test_a_wrong_name_is_told_the_nearest() -> None:
    with pytest.raises(UsageError) as failed:
        load_task("klue_nerr")
    assert "klue_ner" in failed.value.hint


def test_a_users_task_is_one_yaml_entry(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine:\n  like: sst2\n  text: review\n  labels: [bad, good]\n")
    task = load_task(str(path))
    assert (task.name, task.text, task.labels, task.metrics) == ("mine", "review", ("bad", "good"), ("accuracy",))


def test_a_users_task_is_one_python_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from hubcache.train.tasks import Task\n"
        "def shout(rows):\n    return [{**row, 'text': row['text'].upper()} for row in rows]\n"
        "loud = Task(name='loud', kind='text-classification', layout=shout, text='text', label='label')\n"
    )
    assert load_task(str(path)).name == "loud"


def test_one_of_several_tasks_in_a_file_is_named_behind_a_colon(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("a: {like: sst2}\nb: {like: cola}\n")
    assert load_task(f"{path}:b").metrics == ("matthews",)
    with pytest.raises(UsageError, match="2 tasks"):
        load_task(str(path))


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("mine:\n  kind: text-classification\n  lable: y\n", 3, "'lable'"),
        ("mine:\n  kind: text-clasification\n", 1, "'text-clasification'"),
        ("mine:\n  text: a\n", 1, "no kind"),
        ("a: {like: sst2}\nmine:\n  like: sst9\n", 2, "sst9"),
        ("mine:\n  kind: regression\n  options: {stride: 3}\n", 1, "'stride'"),
        ("mine:\n  kind: regression\n  metrics: mse\n", 3, "is a list"),
        ("mine:\n  kind: regression\n  metrics: [mse]\n  best_metric: pearson\n", 1, "pearson"),
        ("mine: 3\n", 1, "no entry"),
    ],
)
def test_a_mistake_in_yaml_is_told_with_file_and_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(BadConfig) as failed:
        load_task(str(path))
    assert f"{path}:{line}:" in failed.value.message
    assert said in failed.value.message


def test_yaml_that_does_not_parse_is_told_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("mine:\n  kind: [text\n")
    with pytest.raises(BadConfig, match="line"):
        load_task(str(path))


def test_settings_change_a_task_by_name() -> None:
    task = changed(load_task("squad"), {"options.stride": 64, "as_published": True, "metrics": "squad_f1"})
    assert (task.option("stride"), task.option("max_length"), task.as_published) == (64, 384, True)
    assert task.metrics == ("squad_f1",)


def test_a_setting_that_no_task_has_is_told_the_nearest() -> None:
    with pytest.raises(UsageError) as failed:
        changed(load_task("squad"), {"optoins.stride": 64})
    assert "options" in failed.value.hint


def test_a_task_goes_through_pickle_to_other_processes() -> None:
    assert pickle.loads(pickle.dumps(load_task("klue_ner"))) == load_task("klue_ner")


def test_heads_are_auto_classes_and_for_t5_its_encoders() -> None:
    assert head_of(load_task("sst2"), "bert") == "AutoModelForSequenceClassification"
    assert head_of(load_task("klue_tc"), "t5") == "T5EncoderForSequenceClassificationMean"
    assert head_of(load_task("klue_re_tk_idx"), "t5") == "T5EncoderForSequenceClassificationMeanSubmeanObjmean"
    assert head_of(load_task("klue_tc_gen"), "t5") == "AutoModelForSeq2SeqLM"


def test_importing_tasks_and_readers_imports_no_torch() -> None:
    program = (
        "import sys; import hubcache.train.tasks, hubcache.train.data; "
        "from hubcache.train.tasks import shipped_tasks; shipped_tasks(); "
        "print([name for name in ('torch', 'transformers', 'numpy', 'datasets', 'pyarrow') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_importing_features_imports_no_torch() -> None:
    program = "import sys; import hubcache.train.features; print('torch' in sys.modules, 'transformers' in sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "False False"


def test_templates_reach_into_cells_and_format() -> None:
    row = {"labels": {"real-label": 1.25}, "a": ["x", "y"], "b": None}
    assert text_of("{labels.real-label:.1f} {a} {b}{{}}")(row) == "1.2 x y {}"
    assert columns_of("{labels.real-label:.1f} {a} {a}") == ("labels.real-label", "a")


def test_a_renamed_template_keeps_all_but_the_column() -> None:
    assert renamed("{{q}}: {question!p} {score:.2f}", {"question": "q"}) == "{{q}}: {q!p} {score:.2f}"


def test_a_broken_template_is_told() -> None:
    with pytest.raises(UsageError, match="does not parse"):
        text_of("{a")


def test_label_cells_are_names_numbers_codes_or_digits() -> None:
    numbers = LabelNumbers(("neg", "pos"), ("NO", "YES"))
    assert [numbers.number(cell) for cell in ("pos", 1, "1", 1.0, "YES", "Pos", " neg ", True)] == [
        1,
        1,
        1,
        1,
        1,
        1,
        0,
        1,
    ]


def test_cells_without_a_label_are_none() -> None:
    numbers = LabelNumbers(("neg", "pos"))
    assert [numbers.number(cell) for cell in (None, "", "-", -1, "-1", float("nan"))] == [None] * 6


def test_numbers_out_of_range_are_codes() -> None:
    task = load_task("tnews")
    numbers = LabelNumbers(task.labels, task.codes)
    assert [numbers.number(cell) for cell in ("102", 102, "news_sports", 2)] == [2, 2, 3, 2]


def test_an_unknown_label_is_told_the_nearest() -> None:
    with pytest.raises(UsageError) as failed:
        LabelNumbers(("entailment", "neutral")).number("entailement")
    assert "entailment" in failed.value.hint


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        (["b", "a", "a", None], (("a", "b"), ())),
        ([2, 0, 1, -1], (("0", "1", "2"), ())),
        (["10", "9", "1"], (("1", "9", "10"), ("1", "9", "10"))),
        ([True, False], (("false", "true"), ())),
        ([1.0, 0.0], (("0", "1"), ())),
    ],
)
def test_labels_are_found_in_order(cells: list[Any], found: Any) -> None:
    assert found_labels(cells) == found


def test_a_task_says_what_is_wrong_with_itself() -> None:
    with pytest.raises(UsageError, match="2 codes for 1 labels"):
        Task(name="x", kind="text-classification", labels=("a",), codes=("1", "2"))
