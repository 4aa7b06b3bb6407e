"""Classify without training: a model that knows entailment scores each label as a hypothesis; no head is made.

Source: Yin et al. 2019, arXiv 1909.00161.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from hubcache.errors import UsageError
from hubcache.train.features import Encoded, make_collator
from hubcache.train.features.encoded import input_features, tokenized
from hubcache.train.heads import Loaded, config_of, load
from hubcache.train.predictions import Reading, read
from hubcache.train.scoring import Scored, scored_of, texts_of
from hubcache.train.tasks import Task, changed


def entailment_of(folder: Path, task: Task) -> tuple[Loaded, int]:
    """Load a classifier of entailment with its own labels; return it and the number of `entailment`.

    Raises: UsageError for a task without labels of whole texts, or a model that has no such label.
    """
    if task.kind not in {"text-classification", "multi-label-classification"} or not task.labels:
        raise UsageError(f"the task {task.name} cannot be done zero-shot", hint="it takes a text classification")
    names = config_of(folder).id2label
    found = [number for number, name in names.items() if str(name).lower().startswith("entail")]
    if len(found) != 1:
        raise UsageError(
            f"{folder} is no classifier of entailment: its labels are {', '.join(map(str, names.values()))}",
            hint="fine-tune it on one of mnli, xnli, klue_nli or ocnli, or leave zero-shot out",
        )
    own = changed(task, {"labels": tuple(names[number] for number in sorted(names)), "codes": ()})
    return load(folder, own, trained=True), found[0]


def score_by_entailment(
    task: Task, loaded: Loaded, encoded: Encoded, reading: Reading, asked: tuple[int, str]
) -> Scored:
    """Score an encoded split; `asked` is the number of `entailment` and the hypothesis, with {} for a label's name."""
    entailment, hypothesis = asked
    texts = [" ".join(texts_of(task, row)) for row in encoded.rows for _ in task.labels]
    labels = [hypothesis.format(label.replace("_", " ")) for _ in encoded.rows for label in task.labels]
    limit = int(task.option("max_length"))
    batch = tokenized(loaded.tokenizer, texts, labels, truncation="only_first", max_length=limit)
    pairs = Encoded(input_features(batch), (), np.arange(len(texts)))
    outputs = read(loaded.model, pairs, make_collator(task, loaded.tokenizer), replace(reading, kind="regression"))
    logits = np.stack(outputs.by_feature)[:, entailment].reshape(len(encoded), len(task.labels))
    return scored_of(task, encoded, replace(outputs, by_feature=tuple(logits)), loaded.tokenizer)
