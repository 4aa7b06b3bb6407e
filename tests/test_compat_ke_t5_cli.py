"""KE-T5's command lines on tiny models, each in a process of its own that reaches nothing but this machine."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer, BertTokenizer, RobertaConfig, RobertaForSequenceClassification, RobertaModel

from hubcache.compat.ke_t5 import bindings
from hubcache.compat.ke_t5.meters import Meter
from hubcache.compat.ke_t5.options import test_options as options_of_test
from hubcache.compat.ke_t5.options import train_options
from hubcache.compat.ke_t5.test_ddp import main as run_test
from hubcache.compat.ke_t5.train_ddp import main as run_train
from hubcache.errors import BadConfig
from hubcache.models import T5EncoderForSequenceClassificationMean
from tests.support.goldens import golden
from tests.support.training import rows_of, shared_data, tiny_t5

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = ("--gin_param", "get_dataset.sequence_length={'inputs': 32, 'targets': 32}")
RATE = ("--gin_param", "AdamW.lr=1e-3")
VOCABULARY = ("--gin_param", "get_vocabulary.vocab_name='tiny'")
LOOPBACK_ONLY = """
import socket
_connect = socket.socket.connect
def connect(self, address):
    if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1", "localhost"):
        raise OSError(f"no way out: {address}")
    return _connect(self, address)
socket.socket.connect = connect
"""
MY_MODEL = """
from hubcache.compat.ke_t5 import register_model
from hubcache.models import T5EncoderForSequenceClassificationSimple

@register_model("abcdefg")
class MyModel(T5EncoderForSequenceClassificationSimple):
    pass
"""


def write_rows(folder: Path, **splits: Any) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        lines = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
        (folder / f"{split}.jsonl").write_text(lines, encoding="utf-8")


def write_roberta(repo: Path) -> None:
    """Write a tiny klue/roberta-small, which has a BERT's tokenizer, into the cache."""
    snapshot = repo / "snapshots" / ("b" * 40)
    tokenizer = BertTokenizer(vocab=str(shared_data("vocabs/bert-base-uncased.vocab.txt")))
    torch.manual_seed(1)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    places = {"max_position_embeddings": 514, "pad_token_id": tokenizer.pad_token_id}
    RobertaModel(RobertaConfig(vocab_size=len(tokenizer), **sizes, **places)).save_pretrained(snapshot)
    tokenizer.save_pretrained(snapshot)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("b" * 40)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to work in: a cache that holds a tiny ke-t5-base, data by the original's names, and a user's module."""
    folder = tmp_path_factory.mktemp("ke-t5")
    repo = folder / "hub/models--KETI-AIR--ke-t5-base"
    tiny_t5(repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text("a" * 40)
    for copy in ("tiny", "path_to_pretrained_model_weights"):
        shutil.copytree(repo / "snapshots" / ("a" * 40), folder / copy)
    shutil.copy(bindings.SHIPPED / "train_default.gin", folder / "my_model.gin")
    write_roberta(folder / "hub/models--klue--roberta-small")
    for config, name in (("ynat", "klue_ynat"), ("ner", "klue_ner"), ("re", "klue_re")):
        write_rows(folder / "data/klue" / config, train=rows_of(name, "train", 90), test=rows_of(name, "test", 24))
    texts = [{"article": row["title"] * 3, "highlights": row["title"]} for row in rows_of("klue_ynat", "train", 24)]
    write_rows(folder / "data/nikl/summarization.v1.0.summary.split", train=texts[:20], test=texts[20:])
    (folder / "my_model.py").write_text(MY_MODEL)
    (folder / "site").mkdir()
    (folder / "site/sitecustomize.py").write_text(LOOPBACK_ONLY)
    return folder


def environment(bench: Path) -> dict[str, str]:
    path = os.pathsep.join((str(bench / "site"), str(ROOT)))
    told = {"PYTHONPATH": path, "HF_HUB_CACHE": str(bench / "hub"), "OMP_NUM_THREADS": "1", "PYTHON": sys.executable}
    return {**os.environ, **told, "HF_HUB_OFFLINE": "1"}


def run(bench: Path, *command: str, most: float = 280) -> subprocess.CompletedProcess[str]:
    """Run a command that has to succeed, in so many seconds."""
    ran = subprocess.run(command, cwd=bench, env=environment(bench), capture_output=True, text=True, timeout=most)
    assert ran.returncode == 0, ran.stderr[-3000:]
    return ran


def finish(bench: Path, *command: str, most: float = 280) -> list[dict[str, Any]]:
    """Run a command that has to succeed; return its JSON lines."""
    return [json.loads(line) for line in run(bench, *command, most=most).stdout.splitlines()]


def train(bench: Path, output: str, *flags: str) -> dict[str, Any]:
    command = ("-m", "hubcache.compat.ke_t5.train_ddp", "--output_dir", output, "--pre_trained_model", "tiny")
    return finish(bench, sys.executable, *command, *LENGTHS, *RATE, *flags)[0]


def score(bench: Path, output: str, *flags: str) -> dict[str, Any]:
    command = ("-m", "hubcache.compat.ke_t5.test_ddp", "--output_dir", output, "--resume", "true")
    return finish(bench, sys.executable, *command, *LENGTHS, *flags)[0]


def checkpoint(bench: Path, output: str) -> dict[str, Any]:
    (path,) = (bench / output).rglob("checkpoint.pth")
    return torch.load(path, weights_only=True)


def test_the_readmes_command_lines_run_on_two_processes(bench: Path) -> None:
    told = finish(bench, "bash", str(ROOT / "tests/scripts/ke_t5_readme.sh"), most=900)
    assert [(each["task"], each["rows"]) for each in told] == [
        ("nikl_summarization_summary_split", 2),
        ("nikl_summarization_summary_split", 2),
        ("klue_tc", 9),
        ("nikl_summarization_summary_split", 4),
        ("klue_tc", 9),
    ]
    made = RobertaForSequenceClassification.from_pretrained(bench / "hf_out/klue_bert_tc")
    assert (made.config.num_labels, AutoTokenizer.from_pretrained(bench / "hf_out/klue_bert_tc").cls_token) == (
        8,
        "[CLS]",
    )


def test_a_killed_run_resumes_to_the_weights_of_an_undisturbed_one(bench: Path) -> None:
    flags = ("--epochs", "6", "--batch_size", "8", "--schedule")
    train(bench, "whole", *flags)
    command = ("-m", "hubcache.compat.ke_t5.train_ddp", "--output_dir", "killed", "--pre_trained_model", "tiny")
    process = subprocess.Popen(
        [sys.executable, *command, *LENGTHS, *RATE, *flags],
        cwd=bench,
        env=environment(bench),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    ended = time.monotonic() + 120
    while time.monotonic() < ended and process.poll() is None and not list((bench / "killed").rglob("best_model.pth")):
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    train(bench, "killed", *flags, "--resume", "true")
    whole, killed = (checkpoint(bench, output)["state_dict"] for output in ("whole", "killed"))
    assert all(torch.equal(whole[name], killed[name]) for name in whole)


def test_one_process_scores_the_checkpoint_of_two_as_two_do(bench: Path) -> None:
    launch = (sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "-m")
    flags = ("--output_dir", "two", "--task", "klue_tc", *LENGTHS)
    finish(bench, *launch, "hubcache.compat.ke_t5.train_ddp", *flags, "--epochs", "1", "--pre_trained_model", "tiny")
    (two,) = finish(bench, *launch, "hubcache.compat.ke_t5.test_ddp", *flags, "--resume", "best")
    one = score(bench, "two", "--task", "klue_tc", "--resume", "best")
    two["metrics"].pop("loss"), one["metrics"].pop("loss")
    assert one == two


@pytest.mark.parametrize("model", ["T5EncoderForEntityRecognitionWithCRF", "t5_encoder_for_token_classification"])
def test_a_tagger_is_trained_and_tested_the_crf_too(bench: Path, model: str) -> None:
    name = model if model[0] == "T" else f"ke_t5.models.models:{model}"
    flags = ("--task", "klue_ner", "--model_name", name)
    train(bench, f"ner-{model}", *flags, "--epochs", "1", "--pass_only_model_io")
    told = score(bench, f"ner-{model}", *flags, "--pass_only_model_io")
    assert told["rows"] == 24
    assert set(told["metrics"]) >= {"token_accuracy", "klue_ner_entity_f1"}


def test_relations_are_tested_with_their_entities_tokens(bench: Path) -> None:
    name = "T5EncoderForSequenceClassificationREAttention"
    flags = ("--task", "klue_re_tk_idx", "--model_name", name)
    train(bench, "re", *flags, "--epochs", "1")
    assert score(bench, "re", *flags, "--gin_file", "gin/test_RE.gin", *LENGTHS, *VOCABULARY)["rows"] == 24


def test_train_ddp_scores_alone_with_test(bench: Path) -> None:
    trained = train(bench, "scored", "--epochs", "1")
    assert train(bench, "scored", "--test", "--resume", "true")["metrics"] == trained["metrics"]


def test_metrics_of_training_and_validation_are_logged_at_each_epoch_as_the_originals(bench: Path) -> None:
    command = ("-m", "hubcache.compat.ke_t5.train_ddp", "--output_dir", "logged", "--pre_trained_model", "tiny")
    ran = run(bench, sys.executable, *command, *LENGTHS, *RATE, "--epochs", "2", "--print_freq", "2")
    lines = ran.stderr.splitlines()
    steps = [line for line in lines if line.startswith("-----Training-----")]
    epochs = [line for line in lines if line.startswith("Epoch:")]
    # 81 rows are three batches of 32: the second and the last are told.
    assert ["train/loss: " in line and "train/ke_t5_accuracy: " in line for line in steps] == [True] * 4
    assert [re.findall(r"(\w+)/ke_t5_accuracy: ", line) for line in epochs] == [["train"], ["eval"]] * 2


def test_the_figures_are_tensorboards_scalars_where_it_is_installed(bench: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    train(bench, "scalars", "--epochs", "1")
    (folder,) = (path.parent for path in (bench / "scalars").rglob("events.*"))
    found = events.EventAccumulator(str(folder)).Reload().Tags()["scalars"]
    assert {"train/loss", "train/ke_t5_accuracy", "eval/ke_t5_accuracy"} <= set(found)


def test_flags_that_change_nothing_are_told_on_stderr(bench: Path) -> None:
    command = ("-m", "hubcache.compat.ke_t5.train_ddp", "--output_dir", "told", "--pre_trained_model", "tiny")
    flags = ("--gpu", "1", "--pass_only_model_io", "--hf_cache_dir", "x", "--learning_rate", "1e-2", "--hf_path", "out")
    lines = run(bench, sys.executable, *command, *LENGTHS, *flags).stderr.splitlines()
    told = [line.split()[0] for line in lines if "not used" in line or "--schedule's" in line]
    assert sorted(told) == ["--gpu", "--hf_cache_dir", "--learning_rate", "--pass_only_model_io"]


# In this process


@pytest.mark.parametrize(
    ("arguments", "name", "value"),
    [
        (["-epochs", "5"], "epochs", 5),
        (["--batch", "32"], "batch_size", 32),
        (["--test_split", "train[90%:]"], "valid_split", "train[90%:]"),
        (["--notest"], "test", False),
        (["--schedule=true"], "schedule", True),
        (["--local-rank", "1"], "local_rank", 1),
    ],
)
def test_flags_are_read_in_absls_spellings(arguments: list[str], name: str, value: object) -> None:
    assert getattr(train_options(arguments), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", "klue_tc"),
        ("model_name", "ke_t5.models.models:T5EncoderForSequenceClassificationMean"),
        ("pre_trained_model", "KETI-AIR/ke-t5-base"),
        ("hf_data_dir", "./data"),
        ("output_dir", "output"),
        ("test", False),
        ("schedule", False),
        ("resume", ""),
        ("hf_path", ""),
        ("train_split", "train[:90%]"),
        ("valid_split", "train[90%:]"),
        ("batch_size", 32),
        ("workers", 0),
        ("epochs", 30),
        ("start_epoch", 0),
        ("print_freq", 50),
        ("gin_file", []),
        ("gin_param", []),
        ("module_import", []),
    ],
)
def test_a_default_of_train_ddp_is_the_originals(name: str, value: object) -> None:
    assert getattr(train_options([]), name) == value


def test_the_defaults_of_test_ddp_are_the_originals() -> None:
    options = options_of_test([])
    assert (options.test_split, options.batch_size, options.task) == ("test", 24, "klue_tc")


@pytest.mark.parametrize("text", ["import antigravity", "from __gin__ import dynamic_registration", "import os.path"])
def test_a_gin_file_imports_nothing_by_itself(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.gin").write_text(text)
    with pytest.raises(BadConfig, match="imports"):
        bindings.read_bindings([str(tmp_path / "a.gin")], [])


def test_an_included_gin_file_imports_nothing_either(tmp_path: Path) -> None:
    (tmp_path / "a.gin").write_text("import antigravity")
    (tmp_path / "b.gin").write_text(f"include '{tmp_path / 'a.gin'}'")
    with pytest.raises(BadConfig, match="imports antigravity"):
        bindings.read_bindings([str(tmp_path / "b.gin")], [])


@pytest.mark.parametrize("name", sorted(path.name for path in bindings.SHIPPED.glob("*.gin")))
def test_every_shipped_gin_file_is_read(name: str) -> None:
    bindings.read_bindings([f"gin/{name}"], [])
    assert bindings.get_dataset()["inputs"] == 512


def test_generate_takes_the_tasks_arguments_and_leaves_the_prefix_out() -> None:
    bindings.read_bindings([], ["EvaluationHelper.model_fn='generate'"])
    assert bindings.EvaluationHelper().generation({"num_beams": 4, "prefix": "x"}) == {"num_beams": 4}


def test_without_a_length_the_error_says_what_to_bind(capfd: pytest.CaptureFixture[str]) -> None:
    assert run_train([]) == 1
    assert "get_dataset.sequence_length" in capfd.readouterr().err


def test_a_checkpoint_that_is_nowhere_is_not_tested(bench: Path, capfd: pytest.CaptureFixture[str]) -> None:
    flags = ["--hf_data_dir", str(bench / "data"), "--output_dir", str(bench / "none"), "--resume", "true"]
    assert run_test([*LENGTHS, *flags]) == 1
    assert "has 0 runs" in capfd.readouterr().err


def test_a_bound_optimizer_takes_the_reference_s_eight_steps() -> None:
    folder = golden("ket5/models/train8-T5EncoderForSequenceClassificationMean")
    kept = np.load(folder / "io.npz")
    model = T5EncoderForSequenceClassificationMean.from_pretrained(folder).train()
    bindings.read_bindings(["gin/train_default.gin"], ["AdamW.lr=1e-3"])
    optimizer = bindings.get_optimizer(model.parameters())
    batch = {name: torch.from_numpy(kept[name]) for name in ("input_ids", "attention_mask", "labels")}
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(kept["losses"].tolist(), abs=1e-4)


def test_the_highest_rate_of_the_schedule_is_the_originals_where_none_is_told() -> None:
    options = train_options(["--schedule"])
    assert (options.learning_rate, options.notes) == (0.001, [])


def test_input_keys_without_the_mask_are_told_to_get_it() -> None:
    bindings.read_bindings([], ["EvaluationHelper.model_input_keys=['input_ids']"])
    assert [note.split()[-2] for note in bindings.EvaluationHelper().notes] == ["attention_mask,"]


def test_means_are_weighted_by_rows_and_leave_out_what_is_no_number() -> None:
    meter = Meter()
    meter.add({"loss": 1.0, "pearson": float("nan")}, 3)
    meter.add({"loss": 5.0, "pearson": 0.5}, 1)
    assert meter.means == {"loss": 2.0, "pearson": 0.5}
