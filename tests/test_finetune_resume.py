"""Runs that are killed, run in several processes, or run without a way out; each in processes of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from hubcache.train.callbacks import DONE_FILE, last_checkpoint
from hubcache.train.finetune import CHECKPOINTS, finetune
from hubcache.train.record import RunRecord
from hubcache.train.trainer import RowOrder
from tests.support.finetuning import NO_WAY_OUT, finish, sentiment_request, start
from tests.support.training import tiny_bert

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

SLOWER = ("epochs=6", "batch=8")
"""Settings that leave time to be killed: 228 steps."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def undisturbed(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    finish(start(model, output, *SLOWER))
    return output


def kill_at(process: subprocess.Popen[str], output: Path, step: int) -> None:
    """Kill a run and its workers once it has a whole checkpoint of that step or a later one."""
    ended = time.monotonic() + 120
    while time.monotonic() < ended and process.poll() is None:
        steps = [int(mark.parent.name.rpartition("-")[2]) for mark in (output / CHECKPOINTS).glob(f"*/{DONE_FILE}")]
        if max(steps, default=0) >= step:
            break
        time.sleep(0.002)
    # torchrun puts its workers into sessions of their own.
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    for pid in (process.pid, *map(int, children)):
        os.kill(pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def told(folder: Path) -> dict[str, Any]:
    """Return what of a record does not depend on the clock or the machine's memory."""
    record = RunRecord.read(folder)
    return {"metrics": record.metrics, "history": record.history, "best_step": record.best_step}


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(model: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    for step in (50, 140):
        kill_at(start(model, output, *SLOWER), output, step)
    printed = finish(start(model, output, *SLOWER))
    assert "resumed from checkpoint-" in printed
    assert (output / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def test_a_killed_run_tells_the_history_of_an_undisturbed_one(model: Path, undisturbed: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    kill_at(start(model, output, *SLOWER), output, 70)
    finish(start(model, output, *SLOWER))
    assert told(output) == told(undisturbed)


def test_a_checkpoint_that_was_not_written_whole_is_not_resumed_from(
    model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    kill_at(start(model, output, *SLOWER), output, 70)
    last = max((output / CHECKPOINTS).glob("checkpoint-*"), key=lambda folder: int(folder.name.rpartition("-")[2]))
    torn = shutil.copytree(last, last.with_name("checkpoint-190"))
    (torn / DONE_FILE).unlink()
    (torn / "optimizer.pt").write_bytes(b"")
    finish(start(model, output, *SLOWER))
    assert (output / "model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()


def test_checkpoints_of_another_request_are_not_resumed_from(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    kill_at(start(model, output, *SLOWER), output, 20)
    printed = finish(start(model, output, "epochs=1", "seed=7"))
    assert "of another request" in printed
    finish(start(model, tmp_path / "alone", "epochs=1", "seed=7"))
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "alone/model.safetensors").read_bytes()


def test_a_finished_run_leaves_no_checkpoints(undisturbed: Path) -> None:
    assert not (undisturbed / CHECKPOINTS).exists()


def test_no_connection_is_tried_by_a_run_without_a_way_out(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(NO_WAY_OUT, "1")
    printed = finish(start(model, tmp_path / "out", "epochs=1"))
    assert json.loads(printed.splitlines()[-1])["metrics"]["validation"]


TORCHRUN = ("-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "-m")


def test_two_processes_train_one_model_and_the_first_writes_it(model: Path, tmp_path: Path) -> None:
    printed = finish(start(model, tmp_path / "out", "epochs=2", "batch=8", launcher=TORCHRUN))
    record = RunRecord.read(tmp_path / "out")
    assert "2 processes" in printed
    assert printed.count("steps: ") == 1
    assert max(row["step"] for row in record.history) == 38


def test_two_processes_learn_what_one_does_with_twice_the_batch(model: Path, tmp_path: Path) -> None:
    # Without dropout both see the same rows a step: only the order of the sums differs.
    still = tiny_without_dropout(model, tmp_path / "still")
    settings = ("max_steps=10", "epochs=1", "save=no", "evaluate=no", "optimizer=sgd", "lr=0.1")
    finish(start(still, tmp_path / "two", *settings, "batch=8", launcher=TORCHRUN))
    finish(start(still, tmp_path / "one", *settings, "batch=16"))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def tiny_without_dropout(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_two_processes_that_are_killed_go_on(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    settings = ("epochs=4", "batch=4")
    process = start(model, output, *settings, launcher=TORCHRUN)
    kill_at(process, output, 40)
    printed = finish(start(model, output, *settings, launcher=TORCHRUN))
    assert "resumed from checkpoint-" in printed
    finish(start(model, tmp_path / "whole", *settings, launcher=TORCHRUN))
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "whole/model.safetensors").read_bytes()


# The order of rows


def test_an_epoch_meets_every_row_once() -> None:
    order = RowOrder([7, 3, 5, 1, 9, 2, 8], 2, 42, grouped=True)
    assert sorted(order) == list(range(7))


def test_the_order_is_the_seeds_and_the_epochs_alone() -> None:
    lengths = list(range(100))
    first, second = (RowOrder(lengths, 4, 42, grouped=True) for _ in range(2))
    list(first)
    first.set_epoch(3)
    second.set_epoch(3)
    torch.rand(5)
    assert list(first) == list(second)


def test_epochs_differ() -> None:
    order = RowOrder(list(range(100)), 4, 42, grouped=True)
    before = list(order)
    order.set_epoch(1)
    assert list(order) != before


def test_grouped_steps_hold_rows_of_like_length() -> None:
    lengths = torch.randint(5, 120, (1000,), generator=torch.Generator().manual_seed(0)).tolist()
    padded = {}
    for grouped in (False, True):
        rows = list(RowOrder(lengths, 16, 42, grouped=grouped))
        padded[grouped] = sum(max(lengths[row] for row in rows[at : at + 16]) * 16 for at in range(0, 992, 16))
    assert padded[True] < 1.05 * sum(lengths)
    assert padded[False] > 1.5 * sum(lengths)


def test_a_checkpoint_counts_only_for_the_request_that_made_it(tmp_path: Path) -> None:
    for step, request in ((10, "mine"), (20, "another")):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / DONE_FILE).write_text(json.dumps({"request": request, "seconds": 1.0}))
    found = last_checkpoint(tmp_path, "mine")
    assert found is not None
    assert found.folder.name == "checkpoint-10"


def test_the_same_request_runs_in_process_as_in_a_process_of_its_own(
    model: Path, undisturbed: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    finetune(sentiment_request(model, tmp_path / "out", SLOWER))
    assert (tmp_path / "out/model.safetensors").read_bytes() == (undisturbed / "model.safetensors").read_bytes()
