"""SOFA's run_…_hf against what they did there: rows, labels, arguments and results of the recorded runs."""

from __future__ import annotations

import contextlib
import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import pytest

from tests.support.goldens import golden

torch = pytest.importorskip("torch")
sofa = pytest.importorskip("hubcache.compat.sofa")

from transformers import AutoModelForSequenceClassification  # noqa: E402

from hubcache.compat.sofa.examples.finetune import generation, sequence_labeling  # noqa: E402
from hubcache.compat.sofa.examples.finetune import sequence_classification as classification  # noqa: E402
from hubcache.compat.sofa.rows import read_files  # noqa: E402
from hubcache.compat.sofa.training import load_tokenizer, training_arguments  # noqa: E402
from hubcache.errors import UsageError  # noqa: E402
from hubcache.train.pipelines.build import build  # noqa: E402

pytestmark = pytest.mark.train
torch.set_num_threads(1)

ENGLISH, PALM, VECO = "english_sbert-large-std-512", "chinese-palm-base", "xtreme-released-veco"
REVIEWS = ["the movie was great and wonderful\tpos", "the plot is boring and slow\tneg"]
Logs = list[dict[str, Any]]


def recorded(name: str) -> dict[str, Any]:
    """Return what was recorded of a run."""
    return json.loads((golden("sofa/runs") / f"{name}.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Unpack an archive of the goldens, once; return its folder of config.json."""
    folders: dict[str, Path] = {}

    def unpacked(name: str) -> Path:
        if name not in folders:
            folder = tmp_path_factory.mktemp(name)
            with tarfile.open(golden(f"sofa/tarballs/{name}.tar.gz")) as tar:
                tar.extractall(folder, filter="data")
            folders[name] = next(folder.rglob("config.json")).parent
        return folders[name]

    return unpacked


def quietly(run: Any, **arguments: Any) -> tuple[Logs, str]:
    """Run one of SOFA's functions; return what it logged and what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        logs = run(disable_tqdm=True, use_cpu=True, **arguments)
    return logs, printed.getvalue()


def written(folder: Path, lines: list[str]) -> Path:
    """Write lines into a file."""
    (folder / "lines.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
    return folder / "lines.txt"


def text_of(row: dict[str, Any]) -> str:
    return row["text"].split("\t")[0]


def label_of(row: dict[str, Any]) -> str:
    return row["text"].split("\t")[1]


# Rows


@pytest.mark.parametrize("mode", ["None", "ChildTuning-F", "ChildTuning-D"])
def test_rows_of_a_classification_are_the_references(archive: Any, mode: str) -> None:
    about = recorded(f"run_classification_hf_{mode}")
    tokenizer = load_tokenizer(archive(ENGLISH), model_max_length=24)
    task = classification.Task("single_label_classification", text_of, None, label_of)
    rows = [{"text": row["text"]} for row in about["rows"]]
    assert task.encode(rows, tokenizer, ["neg", "pos"]) == about["rows"]


def test_rows_of_a_multi_label_classification_are_the_references(archive: Any) -> None:
    about = recorded("run_classification_hf_multi_label_classification")
    tokenizer = load_tokenizer(archive(ENGLISH), model_max_length=16)
    task = classification.Task(
        "multi_label_classification", text_of, lambda row: "the film", lambda row: label_of(row).split(",")
    )
    rows = task.encode([{"text": row["text"]} for row in about["rows"]], tokenizer, ["a", "b", "c"])
    assert [{name: row[name] for name in about["rows"][0]} for row in rows] == about["rows"]


@pytest.mark.parametrize(("name", "all_tokens"), [(ENGLISH, False), (VECO, True)])
def test_rows_of_a_sequence_labelling_are_the_references(archive: Any, name: str, all_tokens: bool) -> None:
    about = recorded(f"run_sequence_labeling_hf_{name}_{all_tokens}")
    tagging = sequence_labeling.Tagging(
        lambda row: text_of(row).split(),
        lambda row: label_of(row).split(),
        tuple(about["id2label"].values()),
        all_tokens,
    )
    rows = tagging.encode([{"text": row["text"]} for row in about["rows"]], load_tokenizer(archive(name)))
    assert [{name: row[name] for name in about["rows"][0]} for row in rows] == about["rows"]


def test_rows_of_a_generation_are_the_references(archive: Any) -> None:
    about = recorded("run_generation_hf_default")
    tokenizer = load_tokenizer(archive(PALM))
    rows = [generation.encode_pair({"text": line}, tokenizer, 32, 12) for line in about["source_lines"]]
    assert rows == about["rows"]


@pytest.mark.parametrize(
    "name",
    ["run_classification_hf_None", "run_generation_hf_default", f"run_sequence_labeling_hf_{VECO}_True"],
)
def test_the_references_arguments_are_taken_under_their_old_names(tmp_path: Path, name: str) -> None:
    told = recorded(name)["training_args"]
    made = training_arguments({**told, "output_dir": str(tmp_path)}).to_dict()
    old = {"evaluation_strategy", "optim", "warmup_ratio"}
    assert {key: made[key] for key in told if key not in old} == {key: told[key] for key in told if key not in old}
    assert made["eval_strategy"] == told["evaluation_strategy"]


def test_a_share_of_warm_up_steps_stays_a_share(tmp_path: Path) -> None:
    assert training_arguments({"output_dir": str(tmp_path), "warmup_ratio": 0.1}).warmup_steps == 0.1


def test_an_argument_of_neither_age_is_refused() -> None:
    with pytest.raises(TypeError, match="'warmth'"):
        training_arguments({"warmth": 1})


# Runs


@pytest.mark.parametrize("mode", [None, "ChildTuning-F", "ChildTuning-D"])
def test_a_classification_logs_and_saves_what_the_reference_did(archive: Any, tmp_path: Path, mode: str) -> None:
    about = recorded(f"run_classification_hf_{mode}")
    logs, _ = quietly(
        sofa.run_classification_hf,
        pretrain_model_path=archive(ENGLISH),
        output_dir=tmp_path / "made",
        task_type="single_label_classification",
        first_sequence=text_of,
        label=label_of,
        train_file_path=written(tmp_path, REVIEWS * 16),
        dev_file_path=written(tmp_path, REVIEWS * 16),
        child_tuning_type=mode,
        sequence_length=24,
        learning_rate=1e-3,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        eval_steps=4,
        save_steps=4,
    )
    config = json.loads((tmp_path / "made/checkpoint-8/config.json").read_text())
    assert [log["step"] for log in logs] == [log["step"] for log in about["log_history"]]
    assert set(about["eval_keys"]) <= set(logs[-1])
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == about["saved_files"]
    assert (config["id2label"], config["label2id"], config["problem_type"]) == (
        about["id2label"],
        about["label2id"],
        about["problem_type"],
    )


def test_a_classification_learns_to_tell_two_sentences_apart(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, REVIEWS * 16)
    logs, _ = quietly(
        sofa.run_classification_hf,
        pretrain_model_path=archive(ENGLISH),
        output_dir=tmp_path / "made",
        task_type=sofa.TaskType.single_label_classification,
        first_sequence=text_of,
        label=label_of,
        train_file_path=lines,
        dev_file_path=lines,
        sequence_length=16,
        learning_rate=3e-3,
    )
    assert logs[-1]["eval_accuracy"] == 1.0


def test_a_regression_is_scored_by_its_squared_error(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, ["the movie was great\t1.0", "the plot is slow\t0.0"] * 4)
    logs, _ = quietly(
        sofa.run_classification_hf,
        pretrain_model_path=archive(ENGLISH),
        output_dir=tmp_path / "made",
        task_type="regression",
        first_sequence=text_of,
        label=label_of,
        train_file_path=lines,
        dev_file_path=lines,
        sequence_length=16,
        num_train_epochs=1,
    )
    assert logs[-1]["eval_mse"] == pytest.approx(logs[-1]["eval_loss"], abs=1e-6)


def test_without_a_dev_file_a_classification_only_trains(archive: Any, tmp_path: Path) -> None:
    logs, _ = quietly(
        sofa.run_classification_hf,
        pretrain_model_path=archive(ENGLISH),
        output_dir=tmp_path / "made",
        task_type="single_label_classification",
        first_sequence=text_of,
        label=label_of,
        train_file_path=written(tmp_path, REVIEWS * 4),
        sequence_length=16,
        num_train_epochs=1,
    )
    assert "train_loss" in logs[-1]


def test_an_unknown_task_type_is_refused_in_sofas_words(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^Unsupported task type:ranking$"):
        sofa.run_classification_hf(tmp_path, tmp_path, "ranking", text_of, label_of)


@pytest.mark.parametrize("by_entity", [False, True])
def test_a_sequence_labelling_logs_entity_scores(archive: Any, tmp_path: Path, by_entity: bool) -> None:
    about = recorded(f"run_sequence_labeling_hf_{VECO}_True")
    lines = written(tmp_path, [row["text"] for row in about["rows"]] * 3)
    logs, _ = quietly(
        sofa.run_sequence_labeling_hf,
        pretrain_model_path=archive(VECO),
        output_dir=str(tmp_path / "made"),
        first_sequence=lambda row: text_of(row).split(),
        label=lambda row: label_of(row).split(),
        train_file_path=lines,
        dev_file_path=lines,
        return_entity_level_metrics=by_entity,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        eval_steps=1,
        save_steps=1,
    )
    wanted = {"eval_overall_f1", "eval_PER_number", "eval_LOC_precision"} if by_entity else set(about["eval"])
    assert wanted <= set(logs[-1])
    assert [log["step"] for log in logs] == [log["step"] for log in about["log_history"]]


@pytest.fixture(scope="module")
def generated(archive: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Logs, str]:
    """Run the recorded generation: 16 rows of its 4 lines, one epoch, saving at each step."""
    about, folder = recorded("run_generation_hf_default"), tmp_path_factory.mktemp("generated")
    lines = written(folder, about["source_lines"] * 4)
    return quietly(
        sofa.run_generation_hf,
        pretrain_model_path=archive(PALM),
        output_dir=folder / "made",
        task_type="generation",
        train_file_path=lines,
        dev_file_path=lines,
        sequence_length=32,
        target_length=12,
        num_train_epochs=1,
        per_device_train_batch_size=4,
        save_steps=1,
    )


def test_a_generation_prints_the_references_gold_text(generated: tuple[Logs, str]) -> None:
    gold = recorded("run_generation_hf_default")["stdout"].splitlines()[2]
    assert gold in generated[1].splitlines()


def test_a_generation_scores_as_many_texts_as_the_reference(generated: tuple[Logs, str]) -> None:
    assert "test result 16:  {'Bleu-1': " in generated[1]


def test_a_generation_logs_its_scores(generated: tuple[Logs, str]) -> None:
    assert any({"Bleu-4", "Rouge-L", "epoch", "step"} <= set(log) for log in generated[0])


def test_a_generation_has_the_references_loss_over_the_padding(generated: tuple[Logs, str]) -> None:
    theirs = recorded("run_generation_hf_default")["log_history"][0]["train_loss"]
    assert generated[0][-1]["train_loss"] == pytest.approx(theirs, abs=0.01)


def test_fewer_dev_rows_than_a_batch_are_scored(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, recorded("run_generation_hf_default")["source_lines"][:3])
    _, printed = quietly(
        sofa.run_generation_hf,
        pretrain_model_path=archive(PALM),
        output_dir=tmp_path / "made",
        task_type="generation",
        train_file_path=lines,
        dev_file_path=lines,
        sequence_length=32,
        target_length=12,
        num_train_epochs=1,
    )
    assert "test result 3:  " in printed


def test_without_a_dev_file_a_generation_only_trains(archive: Any, tmp_path: Path) -> None:
    logs, printed = quietly(
        sofa.run_generation_hf,
        pretrain_model_path=archive(PALM),
        output_dir=tmp_path / "made",
        task_type="generation",
        train_file_path=written(tmp_path, recorded("run_generation_hf_default")["source_lines"]),
        sequence_length=32,
        target_length=12,
        num_train_epochs=1,
        config_args={"loss_over_padding": False},
        child_tuning_type="ChildTuning-D",
    )
    assert (math.isfinite(logs[-1]["train_loss"]), "test result" in printed) == (True, False)


def test_a_line_without_one_tab_is_refused(archive: Any) -> None:
    with pytest.raises(ValueError, match="one tab"):
        generation.encode_pair({"text": "no tab"}, load_tokenizer(archive(PALM)), 8, 8)


# The pieces


def test_a_blank_line_is_a_row_as_it_is_to_datasets(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_bytes(b"a\tb\r\n\n\x0cc\n")
    assert read_files(tmp_path / "lines.txt") == [{"text": "a\tb"}, {"text": ""}, {"text": "\x0cc"}]


def test_all_files_of_a_folder_are_read_in_order(tmp_path: Path) -> None:
    for name in "ba":
        (tmp_path / name).write_text(f"{name}\n")
    assert read_files(tmp_path) == [{"text": "a"}, {"text": "b"}]


def test_an_unknown_reader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'xml'"):
        read_files(tmp_path, "xml")


@pytest.mark.parametrize("name", ["zh_basic", "no_overlap", "spaces_and_latin", "multi_ref"])
def test_bleu_and_rouge_by_key_are_the_references(name: str) -> None:
    case = json.loads((golden("sofa/metrics") / "bleu_rouge.json").read_text("utf-8"))["cases"][name]
    made = {str(key): sofa.utils.normalize([text]) for key, text in enumerate(case["pred"])}
    real = {str(key): sofa.utils.normalize(texts) for key, texts in enumerate(case["ref"])}
    assert sofa.utils.compute_bleu_rouge(made, real) == pytest.approx(case["scores_head_a6d5afe"], abs=1e-12)


def test_bleu_of_other_keys_is_refused() -> None:
    with pytest.raises(ValueError, match="same keys"):
        sofa.utils.compute_bleu_rouge({"0": ["a"]}, {"1": ["a"]})


class Raw(sofa.InferenceBase):
    """The pipeline that was recorded: logits as they are."""

    def preprocess(self, x: Any, **kwargs: Any) -> Any:
        return self.tokenizer(x, return_tensors="pt")

    def predict(self, x: Any, **kwargs: Any) -> Any:
        return self.model(**x)

    def postprocess(self, x: Any, **kwargs: Any) -> Any:
        return x


@pytest.fixture
def raw() -> Any:
    """Inject the recorded pipeline and load its model."""
    sofa.inject_pipeline("raw-logits", Raw, AutoModelForSequenceClassification)
    return sofa.pipeline("raw-logits", golden("sofa/runs") / "pipeline_model")


def test_an_injected_pipeline_evaluates(raw: Any) -> None:
    assert (type(raw), raw.model.training, raw.device.type) == (Raw, False, "cpu")


def test_hubcaches_own_pipeline_makes_an_injected_one(raw: Any) -> None:
    assert type(build("raw-logits", golden("sofa/runs") / "pipeline_model")) is Raw


def test_a_pipeline_that_none_injected_is_hubcaches(raw: Any) -> None:
    answer = sofa.pipeline("sentiment-analysis", golden("sofa/runs") / "pipeline_model")("the movie was great")
    assert set(answer[0]) == {"label", "score"}


def test_an_injected_pipeline_answers_as_the_recorded_one(raw: Any) -> None:
    about, answer = recorded("pipeline")["single"], raw("the movie was great")
    assert (type(answer).__name__, list(answer)) == (about["type"], about["keys"])
    assert answer.logits.tolist() == [pytest.approx(about["logits"][0], abs=2e-6)]


def test_a_list_is_answered_one_by_one(raw: Any) -> None:
    several = raw(["the movie was great", "the plot is slow"])
    assert several[0].logits.tolist() == raw("the movie was great").logits.tolist()


def test_a_pipeline_without_a_model_is_refused() -> None:
    with pytest.raises(RuntimeError, match="torch model"):
        Raw(None)


def test_pruned_heads_are_numbered_as_they_were() -> None:
    heads, places = sofa.utils.find_pruneable_heads_and_indices({0, 2}, 3, 2, {0})
    assert (heads, places.tolist()) == ({2}, [0, 1, 4, 5])
