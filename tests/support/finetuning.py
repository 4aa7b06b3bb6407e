"""A fine-tuning run as a process of its own, to be killed, run twice, or run by torchrun."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from hubcache.train.finetune import FinetuneRequest, finetune
from hubcache.train.settings import TrainSettings
from hubcache.train.tasks import load_task
from tests.support.training import rows_of

ROOT = Path(__file__).resolve().parents[2]
NO_WAY_OUT = "HUBCACHE_TEST_NO_WAY_OUT"


def sentiment_request(model: Path, output: Path, pairs: Sequence[str]) -> FinetuneRequest:
    """Make a request of 300 sentences and some settings."""
    splits = {split: rows_of("rotten_tomatoes", split, most) for split, most in (("train", 300), ("validation", 60))}
    settings = TrainSettings(epochs=3, learning_rate=1e-3, save="steps", save_steps=10).updated_by(pairs)
    return FinetuneRequest(
        model=model, task=load_task("rotten_tomatoes"), splits=splits, output=output, settings=settings, say=tell
    )


def tell(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def start(model: Path, output: Path, *pairs: str, launcher: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start the run in a process of its own, on one thread."""
    command = [sys.executable, *(launcher or ("-m",)), "tests.support.finetuning", str(model), str(output), *pairs]
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end of a run that has to succeed; return what it printed."""
    printed, _ = process.communicate(timeout=240)
    assert process.returncode == 0, printed
    return printed


def refuse_connections() -> None:
    """Let no socket of this process connect anywhere, by name or number."""

    def refused(*arguments: object) -> None:
        raise OSError("no way out: the test refuses every connection")

    for owner, name in ((socket.socket, "connect"), (socket.socket, "connect_ex"), (socket, "getaddrinfo")):
        setattr(owner, name, refused)


def main() -> None:
    """Run what the command line says."""
    model, output, *pairs = sys.argv[1:]
    torch.set_num_threads(1)
    if os.environ.get(NO_WAY_OUT):
        refuse_connections()
    Path(output).mkdir(exist_ok=True)
    record = finetune(sentiment_request(Path(model), Path(output), pairs))
    print(json.dumps({"metrics": record.metrics}))


if __name__ == "__main__":
    main()
