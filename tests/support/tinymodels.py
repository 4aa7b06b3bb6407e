"""Models of random weights, one of each kind that pipelines take, put into a cache under any names; none is trained.

It is no zoo of real models: their sizes are 32 wide and two layers deep.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import BertTokenizer, MarianTokenizer, RobertaTokenizer, T5Tokenizer

from hubcache.app.local import compose_local
from hubcache.app.publishing import publish_folder
from hubcache.app.settings import Settings
from hubcache.core.artifact import RepoId
from tests.support.training import shared_data

ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 2,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 64, "decoder_ffn_dim": 64}  # fmt: skip


def put(cache: Path, name: str, folder: Path) -> Path:
    """Move a folder's files into a cache as a repo's main; return its snapshot."""
    settings = replace(Settings.from_environ({**os.environ}), hub_cache=cache)
    _, snapshot = publish_folder(compose_local(settings), folder, RepoId.parse(name), origin="tests")
    return snapshot


def wordpieces(vocabulary: str = "bert-base-uncased") -> Any:
    """Return BERT's own tokenizer."""
    return BertTokenizer(vocab=str(shared_data(f"vocabs/{vocabulary}.vocab.txt")))


def bytes_tokenizer() -> Any:
    """Return a RoBERTa tokenizer that has no merges: a token for each byte."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    letters = [chr(code) for code in (*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324))]
    vocabulary = {token: number for number, token in enumerate([*special, *letters])}
    return RobertaTokenizer(vocab=vocabulary, merges=[])


def model_of(cls: Any, config: Any, seed: int = 3) -> Any:
    """Make a model of random weights that are far apart."""
    torch.manual_seed(seed)
    return cls(config)


def save(folder: Path, model: Any, tokenizer: Any) -> Path:
    """Write both."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def encoder(folder: Path, head: str, *, family: str = "Bert", tokenizer: Any = None, **config: Any) -> Path:
    """Write a transformers encoder with a head: encoder(folder, "ForMaskedLM", family="Roberta")."""
    words = tokenizer if tokenizer is not None else wordpieces()
    made = getattr(transformers, f"{family}Config")(
        vocab_size=len(words), initializer_range=0.4, pad_token_id=words.pad_token_id, **ENCODER, **config
    )
    return save(folder, model_of(getattr(transformers, f"{family}{head}"), made), words)


def bart(folder: Path, head: str, **config: Any) -> Path:
    """Write a BART over bytes."""
    words = bytes_tokenizer()
    special = {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2}
    made = transformers.BartConfig(
        vocab_size=len(words), max_position_embeddings=600, init_std=0.4, forced_eos_token_id=2, **special, **BART,
        **config,
    )  # fmt: skip
    return save(folder, model_of(getattr(transformers, f"Bart{head}"), made), words)


def gpt(folder: Path) -> Path:
    """Write a GPT-2 over bytes."""
    words = bytes_tokenizer()
    config = transformers.GPT2Config(
        vocab_size=len(words), n_embd=32, n_layer=2, n_head=2, n_positions=1024, bos_token_id=0, eos_token_id=2
    )
    return save(folder, model_of(transformers.GPT2LMHeadModel, config), words)


def marian(folder: Path) -> Path:
    """Write a Marian whose two vocabularies are KE-T5's."""
    folder.mkdir(parents=True, exist_ok=True)
    pieces = shared_data("vocabs/ke-t5_sentencepiece.model")
    for name in ("source.spm", "target.spm"):
        shutil.copy(pieces, folder / name)
    shutil.copy(pieces, folder / "spiece.model")
    vocabulary = dict(T5Tokenizer.from_pretrained(folder).get_vocab())
    (folder / "spiece.model").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    words = MarianTokenizer(
        source_spm=str(folder / "source.spm"), target_spm=str(folder / "target.spm"), vocab=str(folder / "vocab.json")
    )
    special = {"pad_token_id": words.pad_token_id, "eos_token_id": words.eos_token_id}
    config = transformers.MarianConfig(
        vocab_size=len(words), decoder_start_token_id=words.pad_token_id, max_position_embeddings=128, **special, **BART
    )
    return save(folder, model_of(transformers.MarianMTModel, config), words)
