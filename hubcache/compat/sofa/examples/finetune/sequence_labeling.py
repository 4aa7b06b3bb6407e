"""SOFA's run_sequence_labeling_hf: its arguments, files and labels over hubcache's models, metrics and Child-Tuning.

It is for scripts that were written for SOFA; new ones use `hubcache finetune`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoModelForTokenClassification, DataCollatorForTokenClassification, set_seed

from hubcache.compat.sofa.rows import TEXT, Files, Row, Taken, label_maps, label_names, prepared, read_files, take
from hubcache.compat.sofa.training import ChildTuning, load_model, load_tokenizer, train_and_evaluate
from hubcache.train.metrics.entities import entity_scores

IGNORED = -100


def run_sequence_labeling_hf(
    pretrain_model_path: str | Path,
    first_sequence: Taken,
    label: Taken,
    train_file_path: Files,
    dev_file_path: Files | None = None,
    child_tuning_type: str | None = None,
    reserve_p: float = 0.2,
    label_enumerate_values: Sequence[Any] | str | None = None,
    data_format: str = TEXT,
    sequence_length: int = 128,
    map_function: Callable[[Row], Row | None] | None = None,
    filter_function: Callable[[Row], bool] | None = None,
    label_all_tokens: bool = True,
    load_best_model_at_end: bool = True,
    save_strategy: str = "steps",
    save_total_limit: int | None = 1,
    evaluation_strategy: str = "steps",
    return_entity_level_metrics: bool = False,
    seed: int = 42,
    config_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """Fine-tune a tagger and evaluate it by entities; checkpoints in `output_dir` are what remains.

    first_sequence and label give a row's words and tags. `kwargs`, `output_dir` among them, are training arguments of
    transformers 4 or 5. Returns what the Trainer logged (the reference returns None).

    Raises: TypeError for a training argument that neither has, UsageError for data that cannot be read.
    """
    set_seed(seed)
    train, dev = (
        prepared(read_files(files, data_format), map_function, filter_function) if files else []
        for files in (train_file_path, dev_file_path)
    )
    names = label_names(label_enumerate_values, {str(tag) for row in [*train, *dev] for tag in take(row, label)})
    tagging = Tagging(first_sequence, label, tuple(names), label_all_tokens, return_entity_level_metrics)
    tokenizer = load_tokenizer(pretrain_model_path, model_max_length=sequence_length)
    settings = {"num_labels": len(names), **label_maps(names), **(config_args or {})}
    model = load_model(AutoModelForTokenClassification, pretrain_model_path, settings)
    told = {
        "load_best_model_at_end": load_best_model_at_end,
        "save_strategy": save_strategy,
        "save_total_limit": save_total_limit,
        "evaluation_strategy": evaluation_strategy,
        "seed": seed,
        **kwargs,
    }
    parts = {
        "train_dataset": tagging.encode(train, tokenizer),
        "eval_dataset": tagging.encode(dev, tokenizer) if dev else None,
        "data_collator": DataCollatorForTokenClassification(tokenizer),
        "compute_metrics": tagging.metrics,
        "processing_class": tokenizer,
    }
    return train_and_evaluate(model, told, ChildTuning(child_tuning_type, reserve_p), parts)


@dataclass(frozen=True, slots=True)
class Tagging:
    """How words and tags are found, turned into tokens and labels, and scored."""

    words: Taken
    tags: Taken
    names: tuple[str, ...]
    all_tokens: bool = True
    by_entity: bool = False

    def encode(self, rows: Sequence[Row], tokenizer: Any) -> list[Row]:
        """Return the rows with their words, tags, token ids and labels; special tokens have -100.

        Raises: ValueError for a row that has not as many tags as words.
        """
        return [{**row, **self._encoded(row, tokenizer)} for row in rows]

    def _encoded(self, row: Row, tokenizer: Any) -> Row:
        words, tags = list(take(row, self.words)), [str(tag) for tag in take(row, self.tags)]
        if len(words) != len(tags):
            raise ValueError(f"{len(tags)} tags for {len(words)} words: {' '.join(words)}")
        tokens = tokenizer(words, truncation=True, is_split_into_words=True)
        labels = self.labels(tokens.word_ids(), tags)
        return {"tokenized_sequence": words, "label_map": tags, **tokens, "labels": labels}

    def labels(self, places: Sequence[int | None], tags: Sequence[str]) -> list[int]:
        """Return each token's label; `places` has the word of a token, None for a special one.

        A word's further tokens have -100, or with `all_tokens` its tag, I- for B- where there is such a tag.
        """
        numbers = {name: number for number, name in enumerate(self.names)}
        labels, before = [], None
        for place in places:
            if place is None or (place == before and not self.all_tokens):
                labels.append(IGNORED)
            else:
                tag = tags[place]
                inside = f"I-{tag[2:]}"
                is_inner = place == before and tag.startswith("B-") and inside in numbers
                labels.append(numbers[inside if is_inner else tag])
            before = place
        return labels

    def metrics(self, made: Any) -> dict[str, float]:
        """Score the logits [rows, seq, labels] of the Trainer by entities, as seqeval does."""
        logits = made.predictions[0] if isinstance(made.predictions, tuple) else made.predictions
        counted = made.label_ids != IGNORED
        guessed, true = (
            [[self.names[number] for number in row[keep]] for row, keep in zip(side, counted, strict=True)]
            for side in (np.argmax(logits, axis=-1), made.label_ids)
        )
        scores = entity_scores(guessed, true)
        overall = {"precision": scores.micro.precision, "recall": scores.micro.recall, "f1": scores.micro.f1}
        overall["accuracy"] = scores.accuracy
        if not self.by_entity:
            return overall
        figures: dict[str, float] = {}
        for kind, score in scores.types.items():
            figures |= {f"{kind}_precision": score.precision, f"{kind}_recall": score.recall}
            figures |= {f"{kind}_f1": score.f1, f"{kind}_number": score.support}
        return {**figures, **{f"overall_{name}": value for name, value in overall.items()}}
