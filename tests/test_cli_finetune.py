"""`hubcache finetune`, `evaluate` and `runs` as people call them: offline, on a small model made here."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from hubcache.demo.models import tiny_bert
from tests.support.commandline import HUBCACHE, CommandLine, Ran
from tests.support.inprocess import InProcess
from tests.support.loophub import LoopHub

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.train]

MODEL, OUTPUT = "local/tiny", "me/mood"
RUN = "structbert-glue-sst2"
GOOD = ["good", "great", "happy", "perfect", "love", "wonderful", "warm", "sweet"]
BAD = ["bad", "boring", "sad", "terrible", "lost", "wrong", "cold", "dark"]
FILLERS = ["the", "a", "movie", "story", "room", "day", "people", "we", "they", "was", "is", "very", "so", "and", "of"]
QUICK = ("--set", "epochs=4", "--set", "learning_rate=3e-3", "--set", "batch_size=8", "--set", "max_length=16")


def rows(count: int, seed: int) -> list[dict[str, Any]]:
    """Write short texts that hold one word of a mood, and which mood."""
    drawn = random.Random(seed)
    found = []
    for _ in range(count):
        label = drawn.randrange(2)
        words = [drawn.choice(FILLERS) for _ in range(drawn.randrange(3, 9))]
        words.insert(drawn.randrange(len(words)), drawn.choice((BAD, GOOD)[label]))
        found.append({"text": " ".join(words), "label": ("bad", "good")[label]})
    return found


def write_rows(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for split, count, seed in (("train", 240, 1), ("validation", 60, 2), ("test", 60, 3)):
        text = "".join(json.dumps(row) + "\n" for row in rows(count, seed))
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Home:
    """A cache with the model in it, and the rows beside it."""

    hubcache: CommandLine
    data: Path

    def finetune(self, *arguments: str, **environ: str) -> Ran:
        command = ("finetune", MODEL, "--task", "text-classification", "--data", str(self.data), "--json", *QUICK)
        return self.hubcache(*command, *arguments, timeout=280, **environ)


def make_home(folder: Path, made_by: type[CommandLine] = InProcess) -> Home:
    source = folder / "tiny"
    source.mkdir()
    for path, content in tiny_bert(7).items():
        (source / path).write_bytes(content)
    hubcache = made_by(folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), TOKENIZERS_PARALLELISM="false")
    pulled = hubcache("pull", source, "--as", MODEL)
    assert pulled.code == 0, pulled.err
    return Home(hubcache, write_rows(folder / "moods"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Home, Ran]:
    home = make_home(tmp_path_factory.mktemp("trained"))
    ran = home.finetune("--output", OUTPUT)
    assert ran.code == 0, ran.err
    return home, ran


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return make_home(tmp_path)


@pytest.fixture
def processes(tmp_path: Path) -> Home:
    """A home whose every command is a process of its own."""
    return make_home(tmp_path, CommandLine)


def test_it_learns(trained: tuple[Home, Ran]) -> None:
    assert trained[1].facts["metrics"]["test"]["accuracy"] > 0.9


def test_the_result_is_a_repo_of_the_cache(trained: tuple[Home, Ran]) -> None:
    home, ran = trained
    files = {path.name for path in Path(ran.facts["path"]).iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.json", "report.html", "README.md"} <= files
    assert home.hubcache.ref(OUTPUT) == ran.facts["commit"]
    listed = home.hubcache("ls", "--json")
    assert OUTPUT in listed.out


def test_the_result_verifies(trained: tuple[Home, Ran]) -> None:
    ran = trained[0].hubcache("verify", OUTPUT)
    assert ran.code == 0, ran.out + ran.err


PIPELINE = """
import json, sys
from transformers import pipeline
classify = pipeline("text-classification", sys.argv[1])
print(json.dumps([classify(text)[0]["label"] for text in sys.argv[2:]]))
"""


def test_the_result_is_loaded_by_an_unmodified_pipeline_offline(trained: tuple[Home, Ran]) -> None:
    ran = trained[0].hubcache.python(PIPELINE, OUTPUT, "it was a great day", "the story is so sad")
    assert ran.facts == ["good", "bad"]


def test_the_record_names_the_model_s_commit_the_data_and_the_command(trained: tuple[Home, Ran]) -> None:
    home, ran = trained
    record = json.loads((Path(ran.facts["path"]) / "run.json").read_text())
    assert record["model"]["digest"] == home.hubcache.ref(MODEL)
    assert len(record["data"][0]["digest"]) == 64
    assert record["command"].startswith("hubcache finetune local/tiny")
    assert record["settings"]["learning_rate"] == 3e-3


def test_nothing_of_the_work_stays_behind(trained: tuple[Home, Ran]) -> None:
    state = Path(trained[0].hubcache.environ["XDG_STATE_HOME"])
    assert list(state.glob("hubcache/runs/*")) == []


def test_evaluate_scores_several_models_in_one_table(trained: tuple[Home, Ran]) -> None:
    home, ran = trained
    command = ("evaluate", OUTPUT, f"{OUTPUT}@main", "--task", "text-classification", "--data", home.data)
    told = home.hubcache(*command)
    assert told.code == 0, told.err
    header, *lines = told.out.splitlines()
    assert header.split()[:2] == ["MODEL", "ACCURACY"]
    assert {float(line.split()[1]) for line in lines} == {round(ran.facts["metrics"]["test"]["accuracy"], 4)}


def test_evaluate_writes_a_prediction_for_every_row(trained: tuple[Home, Ran], tmp_path: Path) -> None:
    home, _ = trained
    command = ("evaluate", OUTPUT, "--task", "text-classification", "--data", home.data, "--output", tmp_path / "told")
    told = home.hubcache(*command)
    assert told.code == 0, told.err
    assert len((tmp_path / "told/predictions.jsonl").read_text().splitlines()) == 60


def test_evaluate_refuses_a_model_without_a_trained_head(trained: tuple[Home, Ran]) -> None:
    home, _ = trained
    told = home.hubcache("evaluate", MODEL, "--task", "text-classification", "--data", home.data)
    assert told.code == 2, told.err


def test_runs_lists_the_run_and_compares_it_with_itself(trained: tuple[Home, Ran]) -> None:
    home, ran = trained
    listed = home.hubcache("runs", "--json")
    assert [json.loads(line)["commit"] for line in listed.out.splitlines()] == [ran.facts["commit"]]
    compared = home.hubcache("runs", OUTPUT, OUTPUT)
    assert "test accuracy" in compared.out
    assert max(map(len, home.hubcache("runs").out.splitlines())) <= 80


def test_a_second_run_takes_a_branch_of_its_own(trained: tuple[Home, Ran]) -> None:
    home, ran = trained
    again = home.finetune("--output", OUTPUT, "--set", "seed=1", "--set", "epochs=1")
    assert again.code == 0, again.err
    assert (again.facts["revision"], home.hubcache.ref(OUTPUT)) == ("run-2", ran.facts["commit"])


def test_the_same_seed_gives_the_same_weights(trained: tuple[Home, Ran], home: Home) -> None:
    again = home.finetune("--output", OUTPUT)
    assert again.code == 0, again.err
    weights = [Path(ran.facts["path"], "model.safetensors").read_bytes() for ran in (trained[1], again)]
    assert weights[0] == weights[1]


def test_it_runs_with_every_connection_refused(home: Home) -> None:
    environ = {key: value for key, value in home.hubcache.environ.items() if key != "HF_HUB_OFFLINE"}
    command = [
        str(HUBCACHE), "exec", "--offline", "--", str(HUBCACHE), "finetune", MODEL, "--task", "text-classification",
        "--data", str(home.data), "--json", *QUICK, "--set", "epochs=1",
    ]  # fmt: skip
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr
    assert "refused" not in done.stderr.lower().replace("no connection was refused", "")


def run_until(command: list[str], environ: Mapping[str, str], folder: Path, pattern: str) -> None:
    """Run a command and kill it as soon as a path that matches is there."""
    process = subprocess.Popen(command, env=dict(environ), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 200
    try:
        while not list(folder.glob(pattern)) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.02)
        assert list(folder.glob(pattern))
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait(30)


def test_a_killed_run_goes_on_and_ends_as_an_undisturbed_one(processes: Home) -> None:
    state = Path(processes.hubcache.environ["XDG_STATE_HOME"])
    undisturbed = processes.finetune("--output", "me/undisturbed")
    command = [
        str(HUBCACHE), "finetune", MODEL, "--task", "text-classification", "--data", str(processes.data), "--json",
        *QUICK, "--output", OUTPUT,
    ]  # fmt: skip
    run_until(command, processes.hubcache.environ, state, "hubcache/runs/*/.checkpoints/checkpoint-*/complete.json")
    again = processes.finetune("--output", OUTPUT)
    assert again.code == 0, again.err
    assert "resumed from checkpoint-" in again.err
    weights = [Path(ran.facts["path"], "model.safetensors").read_bytes() for ran in (undisturbed, again)]
    assert weights[0] == weights[1]


def test_the_same_run_is_not_trained_twice_at_once(home: Home) -> None:
    state = Path(home.hubcache.environ["XDG_STATE_HOME"])
    command = [
        str(HUBCACHE), "finetune", MODEL, "--task", "text-classification", "--data", str(home.data), "--json", *QUICK,
        "--set", "epochs=100", "--set", "early_stopping=0",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=home.hubcache.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 120
        while not list(state.glob("hubcache/runs/*/.checkpoints")) and time.monotonic() < until:
            time.sleep(0.05)
        told = home.finetune("--set", "epochs=100", "--set", "early_stopping=0")
    finally:
        process.kill()
        process.wait(30)
    assert (told.code, "another process" in told.err) == (7, True), told.err


def test_a_published_run_s_settings_are_taken_and_what_is_typed_comes_after(home: Home) -> None:
    data = [{"sentence": row["text"], "label": {"bad": 0, "good": 1}[row["label"]]} for row in rows(80, 5)]
    folder = home.data.parent / "sst2"
    folder.mkdir()
    for split in ("train", "validation"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in data))
    command = ("finetune", MODEL, "--run", RUN, "--data", folder, "--dry-run", "--set", "epochs=1", "--task-set")
    told = home.hubcache(*command, "options.max_length=16")
    assert told.code == 0, told.err
    starred = {line.split()[1]: line.split()[2] for line in told.err.splitlines() if line.startswith("* ")}
    assert (starred["epochs"], float(starred["weight_decay"])) == ("1", 1.0)


def test_two_processes_train_and_one_of_them_publishes(processes: Home) -> None:
    ran = processes.finetune("--output", OUTPUT, "--nproc", "2", "--set", "epochs=8")
    assert ran.code == 0, ran.err[-3000:]
    [line] = ran.out.splitlines()
    assert ran.err.count("device: ") == ran.err.count("240 rows") == 1
    assert json.loads(line)["metrics"]["test"]["accuracy"] > 0.7


def test_a_cached_data_set_is_found_by_its_name(home: Home) -> None:
    with LoopHub() as hub:
        files = {
            f"{split}.jsonl": (home.data / f"{split}.jsonl").read_bytes() for split in ("train", "validation", "test")
        }
        hub.add_repo("me/moods", files, kind="dataset")
        pulled = home.hubcache("pull", "me/moods", "--type", "dataset", HF_ENDPOINT=hub.endpoint, HF_HUB_OFFLINE="0")
        assert pulled.code == 0, pulled.err
    command = ("finetune", MODEL, "--task", "text-classification", "--data", "me/moods", "--dry-run", *QUICK)
    ran = home.hubcache(*command)
    assert ran.code == 0, ran.err
    assert "240 rows" in ran.err


# -- what is wrong is said before anything is trained


def test_a_dry_run_says_every_setting_and_trains_nothing(home: Home) -> None:
    ran = home.finetune("--dry-run")
    assert (ran.code, ran.out) == (0, "")
    assert "learning_rate" in ran.err
    assert not list(Path(home.hubcache.environ["XDG_STATE_HOME"]).glob("hubcache/runs/*"))


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["nobody/nothing", "--task", "text-classification"], 5, "hubcache pull nobody/nothing"),
        ([MODEL, "--task", "text-clasification"], 2, "text-classification"),
        ([MODEL, "--task", "text-classification", "--set", "learning_rat=1"], 2, "learning_rate"),
        ([MODEL, "--task", "text-classification", "--column", "text=words"], 2, "words"),
        ([MODEL, "--task", "question-answering"], 2, "question"),
        ([MODEL], 2, "--task"),
        (["--run", "structbert-glue-nothing"], 2, "structbert"),
    ],
)
def test_what_is_wrong_is_named_with_its_cure(home: Home, arguments: list[str], code: int, told: str) -> None:
    data = [] if "--run" in arguments else ["--data", str(home.data)]
    ran = home.hubcache("finetune", *arguments, *data)
    assert (ran.code, told in ran.err) == (code, True), ran.err


def test_a_data_set_that_is_not_cached_is_named_with_the_pull_that_brings_it(home: Home) -> None:
    ran = home.hubcache("finetune", MODEL, "--task", "sst2")
    assert (ran.code, "hubcache pull" in ran.err) == (5, True), ran.err


@pytest.mark.parametrize("command", ["finetune", "evaluate"])
def test_without_torch_the_way_to_it_is_told(processes: Home, tmp_path: Path, command: str) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
    )
    arguments = (command, MODEL, "--task", "text-classification", "--data", processes.data)
    ran = processes.hubcache(*arguments, PYTHONPATH=str(tmp_path / "blocked"))
    assert (ran.code, "hubcache[train]" in ran.err) == (2, True), ran.err


def test_help_imports_no_torch() -> None:
    for name in ("finetune", "evaluate", "runs"):
        command = [sys.executable, "-X", "importtime", "-m", "hubcache_cli.main", name, "--help"]
        told = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in told.stderr.splitlines()}
        assert told.returncode == 0
        assert not loaded & {"torch", "transformers", "numpy"}
