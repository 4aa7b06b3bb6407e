"""Models so small that they train in seconds, and the rows of the real sets beside the checkout; nothing is mocked."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel, BertTokenizer, T5Config, T5ForConditionalGeneration, T5Tokenizer

from hubcache.train.tasks import Row

DATA = Path(__file__).resolve().parents[2].parent / "shared/data"
"""The sets, one folder each; a test that needs one is skipped where they are not."""


def shared_data(name: str) -> Path:
    """Return a set's folder, or a vocabulary's file."""
    if not (DATA / name).exists():
        pytest.skip(f"{name} is not in ../shared/data")
    return DATA / name


def rows_of(name: str, split: str, most: int) -> list[Row]:
    """Return so many rows of a set's split, drawn alike each time: some files are sorted by label."""
    lines = (shared_data(name) / f"{split}.jsonl").read_text("utf-8").splitlines()
    random.Random(0).shuffle(lines)
    return [json.loads(line) for line in lines[:most]]


def tiny_bert(folder: Path, vocabulary: str = "bert-base-uncased", *, layers: int = 2, width: int = 32) -> Path:
    """Write a BERT of random weights with a real vocabulary; the same sizes give the same weights."""
    tokenizer = BertTokenizer(vocab=str(shared_data(f"vocabs/{vocabulary}.vocab.txt")))
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
        max_position_embeddings=512,
    )
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def tiny_t5(folder: Path, **sizes: Any) -> Path:
    """Write a T5 of random weights with KE-T5's vocabulary."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(shared_data("vocabs/ke-t5_sentencepiece.model"), folder / "spiece.model")
    tokenizer = T5Tokenizer.from_pretrained(folder)
    torch.manual_seed(1)
    shape = {"d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2, **sizes}
    T5ForConditionalGeneration(T5Config(vocab_size=len(tokenizer), decoder_start_token_id=0, **shape)).save_pretrained(
        folder
    )
    tokenizer.save_pretrained(folder)
    return folder
