"""SOFA's run_…_hf against what they did there: rows, labels, arguments and results of the recorded runs."""

from __future__ import annotations

import ast
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

import transformers  # noqa: E402
from transformers import AutoModelForSequenceClassification  # noqa: E402

from hubcache.compat.sofa.examples.finetune import __main__ as script_of  # noqa: E402
from hubcache.compat.sofa.examples.finetune import generation, sequence_labeling  # noqa: E402
from hubcache.compat.sofa.examples.finetune import sequence_classification as classification  # noqa: E402
from hubcache.compat.sofa.rows import read_files  # noqa: E402
from hubcache.compat.sofa.training import load_tokenizer, training_arguments  # noqa: E402
from hubcache.compat.sofa.utils.compat import AUTO_CLASSES  # noqa: E402
from hubcache.errors import UsageError  # noqa: E402
from hubcache.models import SbertConfig, SbertForSequenceClassification  # noqa: E402
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


def classified(model: Path, lines: Path, folder: Path, **more: Any) -> Logs:
    """Train a classifier on lines of text, tab, label, scored on the same lines; `more` overrules."""
    told = {"task_type": "single_label_classification", "first_sequence": text_of, "label": label_of}
    files = {"train_file_path": lines, "dev_file_path": lines, "sequence_length": 16}
    return quietly(
        sofa.run_classification_hf, pretrain_model_path=model, output_dir=folder / "made", **{**told, **files, **more}
    )[0]


def generated_from(model: Path, lines: Path, folder: Path, **more: Any) -> tuple[Logs, str]:
    """Train PALM for an epoch on lines of source, tab, target; return what was logged and printed."""
    told = {"task_type": "generation", "train_file_path": lines, "sequence_length": 32, "target_length": 12}
    output = {"pretrain_model_path": model, "output_dir": folder / "made", "num_train_epochs": 1}
    return quietly(sofa.run_generation_hf, **told, **output, **more)


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
    recipe = {"learning_rate": 1e-3, "num_train_epochs": 1, "per_device_train_batch_size": 4, "sequence_length": 24}
    lines = written(tmp_path, REVIEWS * 16)
    logs = classified(archive(ENGLISH), lines, tmp_path, child_tuning_type=mode, eval_steps=4, save_steps=4, **recipe)
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
    kind = sofa.TaskType.single_label_classification
    lines = written(tmp_path, REVIEWS * 16)
    logs = classified(archive(ENGLISH), lines, tmp_path, task_type=kind, learning_rate=3e-3)
    assert logs[-1]["eval_accuracy"] == 1.0


def test_a_regression_is_scored_by_its_squared_error(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, ["the movie was great\t1.0", "the plot is slow\t0.0"] * 4)
    logs = classified(archive(ENGLISH), lines, tmp_path, task_type="regression", num_train_epochs=1)
    assert logs[-1]["eval_mse"] == pytest.approx(logs[-1]["eval_loss"], abs=1e-6)


def test_without_a_dev_file_a_classification_only_trains(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, REVIEWS * 4)
    logs = classified(archive(ENGLISH), lines, tmp_path, dev_file_path=None, num_train_epochs=1)
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


def reference_scores() -> dict[str, float]:
    """Return the recorded BLEU; the recorded ROUGE-L is of the release's other formula."""
    (line,) = [line for line in recorded("run_generation_hf_default")["stdout"].splitlines() if "test result" in line]
    found: dict[str, float] = ast.literal_eval(line.partition(": ")[2].strip())
    return {name: value for name, value in found.items() if name.startswith("Bleu")}


@pytest.fixture(scope="module")
def generated(archive: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Logs, str]:
    """Run the recorded generation: 16 rows of its 4 lines, one epoch, saving at each step."""
    about, folder = recorded("run_generation_hf_default"), tmp_path_factory.mktemp("generated")
    lines = written(folder, about["source_lines"] * 4)
    model = archive(PALM)
    return generated_from(model, lines, folder, dev_file_path=lines, per_device_train_batch_size=4, save_steps=1)


def test_a_generation_prints_what_the_reference_did(generated: tuple[Logs, str]) -> None:
    theirs = recorded("run_generation_hf_default")["stdout"].splitlines()
    ours = generated[1].splitlines()
    begin = ours.index(theirs[0])
    # BLEU's totals, the ratio, the first gold text and the first generated one, letter by letter.
    assert ours[begin : begin + 4] == theirs[:4]


def test_a_generation_has_the_references_bleu(generated: tuple[Logs, str]) -> None:
    theirs = reference_scores()
    ours = next(log for log in generated[0] if "Bleu-1" in log)
    assert {name: ours[name] for name in theirs} == pytest.approx(theirs, abs=1e-12)


def test_a_generation_logs_its_scores(generated: tuple[Logs, str]) -> None:
    assert any({"Bleu-4", "Rouge-L", "epoch", "step"} <= set(log) for log in generated[0])


def test_a_generation_has_the_references_loss_over_the_padding(generated: tuple[Logs, str]) -> None:
    theirs = recorded("run_generation_hf_default")["log_history"][0]["train_loss"]
    assert generated[0][-1]["train_loss"] == pytest.approx(theirs, abs=0.01)


def test_fewer_dev_rows_than_a_batch_are_scored(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, recorded("run_generation_hf_default")["source_lines"][:3])
    _, printed = generated_from(archive(PALM), lines, tmp_path, dev_file_path=lines)
    assert "test result 3:  " in printed


def test_without_a_dev_file_a_generation_only_trains(archive: Any, tmp_path: Path) -> None:
    lines = written(tmp_path, recorded("run_generation_hf_default")["source_lines"])
    more = {"config_args": {"loss_over_padding": False}, "child_tuning_type": "ChildTuning-D"}
    logs, printed = generated_from(archive(PALM), lines, tmp_path, **more)
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


CASES = ("zh_basic", "identical", "no_overlap", "short_and_long", "repeated_chars", "spaces_and_latin", "multi_ref")


def case_of(name: str) -> tuple[dict[str, Any], dict[str, list[str]], dict[str, list[str]]]:
    """Return a case of the recorded scores, its predictions and its references by number."""
    case = json.loads((golden("sofa/metrics") / "bleu_rouge.json").read_text("utf-8"))["cases"][name]
    made = {str(key): sofa.utils.normalize([text]) for key, text in enumerate(case["pred"])}
    return case, made, {str(key): sofa.utils.normalize(texts) for key, texts in enumerate(case["ref"])}


@pytest.mark.parametrize("name", CASES)
def test_bleu_and_rouge_by_key_are_the_references(name: str) -> None:
    case, made, real = case_of(name)
    assert sofa.utils.compute_bleu_rouge(made, real) == pytest.approx(case["scores_head_a6d5afe"], abs=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_bleus_totals_are_printed_as_the_reference_prints_them(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    case, made, real = case_of(name)
    sofa.utils.compute_bleu_rouge(made, real)
    assert capsys.readouterr().out == case["stdout"]


def test_what_an_epoch_prints_are_the_references_scores(capsys: pytest.CaptureFixture[str]) -> None:
    case, made, real = case_of("zh_basic")
    generation.tell_scores(made, real)
    *_, gold, text, result = capsys.readouterr().out.splitlines()
    assert (gold, text) == (str(real["0"]), str(made["0"]))
    assert ast.literal_eval(result.partition(": ")[2].strip()) == pytest.approx(case["scores_head_a6d5afe"], abs=1e-12)


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


class OtherConfig(SbertConfig):
    """A family that no Auto class knows."""

    model_type = "other-bert"


class OtherModel(SbertForSequenceClassification):
    """Its classifier."""

    config_class = OtherConfig


def test_a_family_is_injected_by_sofas_keywords() -> None:
    told = {"sequence_classification": OtherModel, "module": None, "slow_to_fast_converter": "BertTokenizer"}
    sofa.inject_model_backend("other-bert", "otherbert", OtherConfig, sofa.SbertTokenizer, None, **told)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    made = AutoModelForSequenceClassification.from_config(OtherConfig(vocab_size=9, **sizes))
    assert type(made) is OtherModel


def test_every_keyword_of_sofa_names_an_auto_class() -> None:
    words = "backbone sequence_classification token_classification question_answering multiple_choice pre_train mlm nsp"
    assert set(AUTO_CLASSES) == {*words.split(), "s2slm"}
    assert all(hasattr(transformers, auto) for auto in AUTO_CLASSES.values())


def test_a_keyword_that_sofa_did_not_have_is_refused() -> None:
    with pytest.raises(TypeError, match="'regression'"):
        sofa.inject_model_backend("none", "none", OtherConfig, regression=OtherModel)


# The script finetune_with_huggingface.py


def test_the_scripts_flags_are_read_under_their_old_names(tmp_path: Path) -> None:
    flags = ["--pretrain_model_path", "m", "--output_dir", "o", "--evaluation_strategy", "steps", "--do_train"]
    more = ["--overwrite_output_dir", "--weight_decay", "1", "--load_best_model_at_end", "--eval_steps", "500"]
    script, given = script_of.read_flags([*flags, *more, "--max_sequence_length", "64", "--pair", "1"])
    told = {"evaluation_strategy": "steps", "weight_decay": 1.0, "load_best_model_at_end": True, "eval_steps": 500}
    assert (script.max_sequence_length, script.pair) == (64, 1)
    assert {name: given[name] for name in told} == told


@pytest.mark.parametrize(
    ("config", "wanted"), [("mnli", ("premise", "hypothesis")), ("qqp", ("question1", "question2"))]
)
def test_a_pair_is_found_in_the_columns_of_its_data_set(config: str, wanted: tuple[str, str]) -> None:
    script = script_of.ScriptArguments(pair=1, dataset_name="glue", train_dataset_config=config)
    row = {name: name for name in (*wanted, "label")}
    found = script_of.columns(script)
    assert (found["first_sequence"](row), found["second_sequence"](row), found["label"](row)) == (*wanted, "label")


def test_the_script_trains_on_lines_with_columns_by_number(
    archive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = str(written(tmp_path, [f"{number}\t{line}" for number, line in enumerate(REVIEWS * 4)]))
    flags = ["--pretrain_model_path", str(archive(ENGLISH)), "--output_dir", str(tmp_path / "made"), "--use_cpu"]
    files = ["--train_file_path", lines, "--dev_file_path", lines, "--text_a_idx", "1", "--num_train_epochs", "1"]
    assert (
        script_of.main(
            [
                *flags,
                *files,
                "--evaluation_strategy",
                "no",
                "--disable_tqdm",
                "true",
                "--load_best_model_at_end",
                "false",
            ]
        )
        == 0
    )
    assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["eval_accuracy"] <= 1


def test_the_script_trains_a_tagger_and_palm(archive: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tags").mkdir()
    tags = str(written(tmp_path / "tags", ["john lives\tB-PER O", "in york\tO B-LOC"] * 2))
    pairs = str(written(tmp_path, recorded("run_generation_hf_default")["source_lines"]))
    for kind, name, lines in (("token_classification", VECO, tags), ("generation", PALM, pairs)):
        flags = ["--pretrain_model_path", str(archive(name)), "--output_dir", str(tmp_path / kind), "--use_cpu"]
        files = ["--train_file_path", lines, "--task_type", kind, "--num_train_epochs", "1", "--disable_tqdm", "true"]
        assert script_of.main([*flags, *files, "--max_sequence_length", "32"]) == 0
        assert json.loads(capsys.readouterr().out.splitlines()[-1])["train_loss"] > 0


def test_the_script_without_a_model_says_what_to_give(capsys: pytest.CaptureFixture[str]) -> None:
    assert script_of.main(["--output_dir", "o"]) == 1
    assert "--pretrain_model_path" in capsys.readouterr().err
