"""What the tensors of an original checkpoint are called in ours, and which of them ours has no use for; no sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

_WRAPPED = re.compile(r"(?:module\.|model\.)+")
_NORM = re.compile(r"LayerNorm\.(gamma|beta)$")
_NORM_NAMES = {"gamma": "weight", "beta": "bias"}
_ENCODER_PARTS = ("embeddings.", "encoder.", "pooler.")


@dataclass(frozen=True, slots=True)
class Naming:
    """How a family's tensors are called.

    `rename` turns an original name into ours. `ignored` are patterns of our names with no place in the model, with
    the reason. `tied` are tensors that the model takes from another one: they have to be equal, and are left out.
    """

    rename: Callable[[str], str]
    ignored: Mapping[str, str]
    tied: Mapping[str, str]

    def why_ignored(self, name: str) -> str | None:
        """Say why a tensor (by our name) is left out; None where it is not."""
        return next((why for pattern, why in self.ignored.items() if re.fullmatch(pattern, name)), None)


def unwrapped(name: str) -> str:
    """Take away what DataParallel and wrapping modules put before a name."""
    return _WRAPPED.sub("", name, count=1) if _WRAPPED.match(name) else name


def _bert(prefix: str) -> Callable[[str], str]:
    def rename(name: str) -> str:
        name = _NORM.sub(lambda found: f"LayerNorm.{_NORM_NAMES[found[1]]}", unwrapped(name))
        return f"{prefix}.{name}" if name.startswith(_ENCODER_PARTS) else name

    return rename


def _fairseq(name: str) -> str:
    return f"model.{unwrapped(name)}"


_POSITIONS = {
    r".*\.embeddings\.position_ids": "the numbers 0, 1, 2, … that every model makes itself",
    r".*\.embeddings\.token_type_ids": "zeros that every model makes itself",
}
_DECODER = {
    r"decoder\..*": "the T5 decoder, which an encoder's head has no use for",
    r"lm_head\..*": "the T5 decoder's, which an encoder's head has no use for",
}

SBERT = Naming(
    _bert("bert"),
    ignored=_POSITIONS,
    tied={
        "cls.predictions.decoder.weight": "bert.embeddings.word_embeddings.weight",
        "cls.predictions.decoder.bias": "cls.predictions.bias",
    },
)
VECO = Naming(
    _bert("roberta"),
    ignored=_POSITIONS,
    tied={
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
)
PALM = Naming(unwrapped, ignored={}, tied={"cls.predictions.decoder_weight": "bert.embeddings.word_embeddings.weight"})
VECO_NLG = Naming(
    _fairseq,
    ignored={r"model\.(encoder|decoder)\.version": "fairseq's own count of its formats"},
    tied={
        "model.decoder.embed_tokens.weight": "model.encoder.embed_tokens.weight",
        "model.decoder.output_projection.weight": "model.encoder.embed_tokens.weight",
    },
)
T5_ENCODER = Naming(unwrapped, ignored=_DECODER, tied={"encoder.embed_tokens.weight": "shared.weight"})
