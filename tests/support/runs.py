"""Records of runs as tests of the report and the model card need them; no model is trained."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

from hubcache.train.record import Input, Mistake, RunRecord
from hubcache.train.settings import TrainSettings

HOSTILE = "</p></style><script>fetch('/leak')</script><img src=/leak onerror=fetch('/leak')>\"'`&|\x00\x1b[31m\u202egnp"
"""What a text may hold at worst: markup, quotes, control characters, a direction override."""


def history(rows: int, evaluations: int = 4) -> tuple[Mapping[str, Any], ...]:
    """Make a Trainer's log of so many training rows, each ten steps after the last."""
    chance = random.Random(7)
    told: list[Mapping[str, Any]] = []
    for row in range(1, rows + 1):
        at = {"step": 10 * row, "epoch": 3 * row / rows}
        loss = 0.7 * math.exp(-2 * row / rows) + chance.uniform(0, 0.1)
        told.append({**at, "loss": loss, "learning_rate": 5e-5 * (1 - row / rows), "grad_norm": 2.5})
        if row % max(1, rows // evaluations) == 0:
            scores = {"eval_accuracy": 0.6 + 0.2 * row / rows, "eval_macro_f1": 0.55 + 0.2 * row / rows}
            told.append({**at, "eval_loss": 0.6 - 0.2 * row / rows, "eval_runtime": 3.1, **scores})
    return tuple(told)


def record(**changes: Any) -> RunRecord:
    """Make the record of a whole fine-tuning run of a sentiment task, changed where the test says so."""
    told: dict[str, Any] = {
        "task": "rotten_tomatoes",
        "model": Input("sentence-transformers/all-MiniLM-L6-v2", "a" * 40),
        "data": (Input("cornell-movie-review-data/rotten_tomatoes", "b" * 40), Input("more.jsonl", "c" * 64)),
        "settings": TrainSettings(epochs=5.0, learning_rate=3e-5).told(),
        "command": "hubcache finetune sentence-transformers/all-MiniLM-L6-v2 --task rotten_tomatoes",
        "metrics": {"test": {"accuracy": 0.7921}, "validation": {"macro_f1": 0.8312, "accuracy": 0.8321}},
        "best_metric": "accuracy",
        "best_step": 300,
        "history": history(40),
        "labels": ("neg", "pos"),
        "confusion": ((430, 70), (98, 402)),
        "mistakes": (Mistake(("a dull film",), "neg", "pos", 0.97), Mistake(("이 영화", "第二句"), "pos", "neg")),
        "device": "cpu, fp32",
        "seconds": 754.0,
        "samples_per_second": 63.2,
        "peak_memory": 3 << 30,
        "versions": {"torch": "2.13.0", "transformers": "5.23.0"},
        "notes": ("13 rows were cut to 128 tokens",),
    }
    return RunRecord(**{**told, **changes})


def hostile_record() -> RunRecord:
    """Make a record whose every text is hostile."""
    bad = Input(HOSTILE, HOSTILE)
    return record(
        task=HOSTILE,
        model=bad,
        data=(bad,),
        teacher=bad,
        settings={HOSTILE: HOSTILE, "list": [HOSTILE]},
        command=HOSTILE,
        metrics={HOSTILE: {HOSTILE: 0.5, "accuracy": 0.5}},
        history=(*history(3), {"step": 30, f"eval_{HOSTILE}": 0.5}),
        best_metric=HOSTILE,
        labels=(HOSTILE, HOSTILE),
        mistakes=(Mistake((HOSTILE, "\ud800 half"), HOSTILE, HOSTILE, 0.5),),
        device=HOSTILE,
        versions={HOSTILE: HOSTILE},
        notes=(HOSTILE,),
    )
