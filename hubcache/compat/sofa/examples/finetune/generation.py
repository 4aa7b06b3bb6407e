"""SOFA's run_generation_hf: its arguments and files, with BLEU and ROUGE-L of PALM's texts after each epoch.

It is for scripts that were written for SOFA; new ones use `hubcache finetune`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, TrainerCallback, set_seed

from hubcache.compat.sofa.rows import TEXT, Files, Row, prepared, read_files
from hubcache.compat.sofa.training import (
    OLD_ARGUMENTS,
    ChildTuning,
    load_model,
    load_tokenizer,
    train_and_evaluate,
)
from hubcache.compat.sofa.utils.dureader_eval import compute_bleu_rouge, normalize
from hubcache.compat.sofa.utils.tasks import TaskType
from hubcache.models import TextGenerator

LAST_TOKEN = 21126
"""The last id that the reference took for a token of PALM's vocabulary."""

SHORTEST = 3
"""Characters below which a gold text was not scored."""

DEV_BATCH = 16

__all__ = ["GeneratorCallback", "TextGenerator", "encode_pair", "run_generation_hf"]


def run_generation_hf(
    pretrain_model_path: str | Path,
    output_dir: str | Path,
    task_type: str | TaskType,
    train_file_path: Files | None = None,
    dataset_name: str = TEXT,
    dev_file_path: Files | None = None,
    child_tuning_type: str | None = None,
    reserve_p: float = 0.2,
    sequence_length: int = 128,
    target_length: int = 100,
    map_function: Callable[[Row], Row | None] | None = None,
    filter_function: Callable[[Row], bool] | None = None,
    save_strategy: str = "steps",
    save_total_limit: int | None = 1,
    seed: int = 42,
    config_args: Mapping[str, Any] | None = None,
    num_train_epochs: float = 3,
    **kwargs: Any,
) -> list[dict[str, Any]]:
    """Fine-tune PALM on lines of source, tab, target; after each epoch print and log Bleu-1..4 and Rouge-L of the dev.

    The loss is the reference's, over the padding too, unless config_args has loss_over_padding=False. `kwargs` are
    training arguments of transformers 4 or 5, others are not read. Returns what was logged (the reference: None).

    Raises: RuntimeError for another task type, ValueError for a line without exactly one tab or a model that is no
    PALM, UsageError for data that cannot be read.
    """
    if TaskType.word(task_type) != TaskType.generation.value:
        raise RuntimeError(f"Unsupported task type:{TaskType.word(task_type)}")
    if train_file_path is None:
        raise ValueError("train_file_path has to say what to train on")
    set_seed(seed)
    tokenizer = load_tokenizer(pretrain_model_path)
    model = load_model(AutoModelForSeq2SeqLM, pretrain_model_path, {"loss_over_padding": True, **(config_args or {})})
    if not hasattr(model, "palm_batchify"):
        raise ValueError(f"{type(model).__name__} is no PALM: run_generation_hf trains no other family")
    train, dev = (
        [
            encode_pair(row, tokenizer, sequence_length, target_length)
            for row in prepared(read_files(files, dataset_name), map_function, filter_function)
        ]
        if files
        else []
        for files in (train_file_path, dev_file_path)
    )
    told = {
        "output_dir": str(output_dir),
        "save_strategy": save_strategy,
        "save_total_limit": save_total_limit,
        "num_train_epochs": num_train_epochs,
        "seed": seed,
        "remove_unused_columns": False,
        **{name: value for name, value in kwargs.items() if name in OLD_ARGUMENTS},
    }
    parts = {
        "train_dataset": train,
        "data_collator": model.palm_batchify,
        "callbacks": [GeneratorCallback(tokenizer, dev)] if dev else [],
    }
    return train_and_evaluate(model, told, ChildTuning(child_tuning_type, reserve_p), parts)


def encode_pair(row: Row, tokenizer: Any, sequence_length: int, target_length: int) -> dict[str, list[int]]:
    """Return a row as PALM reads it: input_ids, input_mask, segment_ids [sequence_length], target_ids [target_length].

    Raises: ValueError where the text has not exactly one tab.
    """
    source, *targets = row[TEXT].split("\t")
    if len(targets) != 1:
        raise ValueError(f"a line is a source, one tab and a target, not {row[TEXT]!r}")
    tokens = _ids(source, tokenizer, sequence_length)
    length = len(tokens)
    return {
        "input_ids": _padded(tokens, sequence_length),
        "input_mask": _padded([1] * length, sequence_length),
        "segment_ids": [0] * sequence_length,
        "target_ids": _padded(_ids(targets[0], tokenizer, target_length), target_length),
    }


class GeneratorCallback(TrainerCallback):
    """After each epoch, generate for the dev rows, score by characters, print as the reference and log."""

    def __init__(self, tokenizer: Any, dev: Sequence[Mapping[str, Sequence[int]]]) -> None:
        self.tokenizer = tokenizer
        self.dev = dev

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Score on the first process; the others go on, and wait for it at the next step."""
        if not state.is_world_process_zero:
            return
        golds, made = self.texts(kwargs["model"])
        if golds:
            scores = tell_scores(made, golds)
            state.log_history.append({**scores, "epoch": state.epoch, "step": state.global_step})

    def texts(self, model: Any) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
        """Return the gold and the generated texts by number, character by character; short golds are left out."""
        generator = TextGenerator(model, self.tokenizer.vocab, self.tokenizer.vocab)
        golds: list[str] = []
        made: list[str] = []
        for begin in range(0, len(self.dev), DEV_BATCH):
            rows = self.dev[begin : begin + DEV_BATCH]
            generated = generator.translate_batch(
                [
                    torch.tensor([list(row[name]) for row in rows], device=model.device)
                    for name in ("input_ids", "segment_ids", "input_mask")
                ]
            )["predictions"]
            golds += [self.text(row["target_ids"]) for row in rows]
            made += [self.text(best[0].tolist()) for best in generated]
        kept = [(gold, text) for gold, text in zip(golds, made, strict=True) if len(gold) >= SHORTEST]
        return tuple(  # type: ignore[return-value]  # one dictionary each
            {str(number): normalize([pair[side]]) for number, pair in enumerate(kept)} for side in (0, 1)
        )

    def text(self, ids: Sequence[int]) -> str:
        """Join tokens up to the first [SEP]; what is no token of the vocabulary is unknown, and not written."""
        most = min(LAST_TOKEN, len(self.tokenizer) - 1)
        unknown = self.tokenizer.unk_token_id
        tokens = self.tokenizer.convert_ids_to_tokens([each if each <= most else unknown for each in ids])
        joined = "".join(tokens).replace("##", "").split("[SEP]", 1)[0]
        return joined.replace("[CLS]", "").replace("[UNK]", "")


def tell_scores(made: Mapping[str, Sequence[str]], golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Score generated texts by number, print what the reference did (totals, the first pair, the scores), return it."""
    scores = compute_bleu_rouge(made, golds)
    print(golds["0"])
    print(made["0"])
    print(f"test result {len(golds)}: ", scores)
    return scores


def _ids(text: str, tokenizer: Any, length: int) -> list[int]:
    tokens = ["[CLS]", *tokenizer.tokenize(text), "[SEP]"]
    if len(tokens) > length:
        tokens = [*tokens[: length - 1], "[SEP]"]
    return list(tokenizer.convert_tokens_to_ids(tokens))


def _padded(ids: Sequence[int], length: int) -> list[int]:
    return [*ids, *[0] * (length - len(ids))]
