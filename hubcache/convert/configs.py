"""An original's config.json made one that transformers 5 reads, and fairseq's arguments made into one; no weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hubcache.convert.layouts import count
from hubcache.errors import EntryNotFound, IntegrityError

Config = dict[str, Any]

# What libraries before transformers 5 wrote into every config.json, at its default: it says nothing, and transformers
# refuses to save a config that has the generation's settings in it.
_GENERATION: Mapping[str, Any] = {
    "max_length": 20, "min_length": 0, "do_sample": False, "early_stopping": False, "num_beams": 1,
    "num_beam_groups": 1, "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0,
    "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "num_return_sequences": 1, "output_scores": False,
    "return_dict_in_generate": False, "remove_invalid_values": False, "bad_words_ids": None,
    "forced_bos_token_id": None, "forced_eos_token_id": None, "exponential_decay_length_penalty": None,
    "suppress_tokens": None, "begin_suppress_tokens": None,
}  # fmt: skip
_GONE: Mapping[str, Any] = {
    "torchscript": False, "use_bfloat16": False, "pruned_heads": {}, "tie_encoder_decoder": False,
    "tf_legacy_loss": False, "add_cross_attention": False, "output_attentions": False, "output_hidden_states": False,
    "return_dict": True, "chunk_size_feed_forward": 0, "_name_or_path": "",
}  # fmt: skip
# Always wrong in a converted repo: who wrote it, and the type that the numbers were stored in.
_REPLACED = ("transformers_version", "torch_dtype", "dtype", "auto_map")
# None means something here: no adversarial loss.
_NULLABLE = ("adv_grad_factor",)


@dataclass(frozen=True, slots=True)
class Repaired:
    """A config that is repaired, generation's settings that are their own file, and what was done."""

    config: Config
    generation: Config
    notes: tuple[str, ...]


def repaired(original: Mapping[str, Any]) -> Repaired:
    """Take away what older libraries left in a config; what nobody here knows stays."""
    said_nothing = {
        key
        for key, value in original.items()
        if (value is None and key not in _NULLABLE)
        or _is_default(key, value, _GENERATION)
        or _is_default(key, value, _GONE)
    }
    generation = {key: value for key, value in original.items() if key in _GENERATION and key not in said_nothing}
    dropped = said_nothing | {key for key in _REPLACED if key in original}
    config = {key: value for key, value in original.items() if key not in dropped | generation.keys()}
    notes = (f"config.json: left out what says nothing to transformers 5: {', '.join(sorted(dropped))}",)
    return Repaired(config, generation, notes if dropped else ())


def _is_default(key: str, value: Any, defaults: Mapping[str, Any]) -> bool:
    return key in defaults and type(value) is type(defaults[key]) and bool(value == defaults[key])


def label_issues(config: Mapping[str, Any], length: int | None) -> tuple[str, ...]:
    """Say where a config tells of another number of classes than the checkpoint's head has."""
    names = config.get("id2label")
    told = len(names) if isinstance(names, Mapping) else config.get("num_labels")
    if length is None or told is None or told == length:
        return ()
    return (f"config.json: it tells of {told} classes; the checkpoint's head has {length}",)


def labels(config: Mapping[str, Any], length: int | None) -> Config:
    """Return what a config has to say of its head's classes and does not; two are understood."""
    if length in {None, 2} or "id2label" in config or "num_labels" in config:
        return {}
    names = {str(number): f"LABEL_{number}" for number in range(length or 0)}
    return {"id2label": names, "label2id": {label: int(number) for number, label in names.items()}}


def palm_tokens(vocabulary: Path | None) -> Config:
    """Look up in a vocab.txt what generation starts, ends and pads with; originals tell only null."""
    if vocabulary is None:
        return {}
    try:
        words = vocabulary.read_bytes().splitlines()
    except OSError as error:
        raise EntryNotFound(f"{vocabulary}: {error.strerror}") from error
    special = {"pad": b"[PAD]", "bos": b"[CLS]", "eos": b"[SEP]", "decoder_start": b"[CLS]"}
    return {f"{name}_token_id": words.index(token) for name, token in special.items() if token in words}


# fairseq's names on the right.
_FAIRSEQ_NUMBERS = {
    "encoder_attention_heads": "encoder_attention_heads",
    "decoder_attention_heads": "decoder_attention_heads",
    "encoder_ffn_dim": "encoder_ffn_embed_dim",
    "decoder_ffn_dim": "decoder_ffn_embed_dim",
    "d_model": "encoder_embed_dim",
}
_FAIRSEQ_RATES = {
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "encoder_layerdrop": "encoder_layerdrop",
    "decoder_layerdrop": "decoder_layerdrop",
}
_FAIRSEQ_ACTIVATIONS = {
    "gelu": "gelu", "relu": "relu", "tanh": "tanh", "gelu_fast": "gelu_pytorch_tanh",
    "gelu_accurate": "gelu_pytorch_tanh",
}  # fmt: skip
# What the one architecture that VECO publishes is built of; another value is another architecture.
_FAIRSEQ_FIXED = {
    "encoder_normalize_before": False, "decoder_normalize_before": False, "encoder_learned_pos": True,
    "decoder_learned_pos": True, "layernorm_embedding": True, "no_token_positional_embeddings": False,
    "adaptive_input": False, "adaptive_softmax_cutoff": None, "no_cross_attention": False,
    "cross_self_attention": False, "share_all_embeddings": True,
}  # fmt: skip


def from_fairseq(arguments: Mapping[str, Any], words: int, position_rows: int) -> Config:
    """Turn a VECO NLG checkpoint's arguments into a config for `words` tokens and `position_rows` positions.

    Raises:
        IntegrityError: they describe another architecture; `issues` lists each argument.
    """
    issues = [
        f"args.{key}: {arguments[key]!r}, not {value!r}"
        for key, value in _FAIRSEQ_FIXED.items()
        if key in arguments and arguments[key] != value
    ]
    activation = arguments.get("activation_fn", "gelu")
    issues += [f"args.activation_fn: {activation!r}"] if activation not in _FAIRSEQ_ACTIVATIONS else []
    issues += [f"args.{name}: missing" for name in _FAIRSEQ_NUMBERS.values() if name not in arguments]
    if issues:
        raise IntegrityError("the checkpoint is no VECO encoder-decoder: " + "; ".join(issues[:3]), issues=issues)
    sizes = {ours: count(arguments, theirs, 0) for ours, theirs in _FAIRSEQ_NUMBERS.items()}
    rates = {ours: arguments[theirs] for ours, theirs in _FAIRSEQ_RATES.items() if theirs in arguments}
    # fairseq counts positions from 2, behind the padding's.
    config = {"vocab_size": words, "max_position_embeddings": position_rows - 2, "pad_token_id": 1, "eos_token_id": 2}
    layers = {f"{side}_layers": _kept_layers(arguments, side) for side in ("encoder", "decoder")}
    return {
        **config,
        **sizes,
        **rates,
        **layers,
        "activation_function": _FAIRSEQ_ACTIVATIONS[activation],
        "scale_embedding": not arguments.get("no_scale_embedding", False),
        "is_encoder_decoder": True,
    }


def _kept_layers(arguments: Mapping[str, Any], side: str) -> int:
    kept = arguments.get(f"keep_{side}_layers")
    return len(str(kept).split(",")) if kept else count(arguments, f"{side}_layers", 24)
