"""Which tensors of which shapes a checkpoint of each family has, as a function of its config; it reads no file.

The names are those that our models save, without what is tied to something else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hubcache.convert.tensors import Shape
from hubcache.errors import IntegrityError

ANY = -1
"""A length that the checkpoint decides, one for all of a group: its number of classes."""

# More than any model has; without a limit, a hostile config.json has the table fill the memory.
_MOST_LAYERS = 1000

Shapes = Mapping[str, Shape]


@dataclass(frozen=True, slots=True)
class Layout:
    """Tensors that have to be there, and groups (a head, a pooler) that are there as a whole or not at all."""

    required: Shapes
    groups: Mapping[str, Shapes] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Comparison:
    """A checkpoint beside its layout: what is wrong, which groups it has, and the length that it decided for each.

    The length of what is required stands under "".
    """

    issues: tuple[str, ...]
    groups: tuple[str, ...]
    lengths: Mapping[str, int]


def compare(layout: Layout, found: Shapes) -> Comparison:
    """Compare a checkpoint's tensors, by name, with a layout."""
    issues: list[str] = []
    lengths: dict[str, int] = {}
    present = [name for name, group in layout.groups.items() if group.keys() & found.keys()]
    for name, group in {"": layout.required, **{name: layout.groups[name] for name in present}}.items():
        sizes = {found[key][axis] for key, axis in _open_axes(group) if key in found and len(found[key]) > axis}
        length = lengths[name] = max(sizes, default=ANY)
        for key, shape in group.items():
            issues += _issue(key, tuple(length if n == ANY else n for n in shape), found, name)
    known = layout.required.keys() | {key for group in layout.groups.values() for key in group}
    issues += [f"{key} {list(shape)}: unexpected" for key, shape in found.items() if key not in known]
    return Comparison(tuple(issues), tuple(present), {name: length for name, length in lengths.items() if length > 0})


def _open_axes(group: Shapes) -> list[tuple[str, int]]:
    return [(key, axis) for key, shape in group.items() for axis, length in enumerate(shape) if length == ANY]


def _issue(key: str, shape: Shape, found: Shapes, group: str) -> Iterable[str]:
    if key not in found:
        yield f"{key}: missing" + (f", though the rest of {group} is there" if group else "")
    elif found[key] != shape:
        yield f"{key}: its shape is {list(found[key])}, not {list(shape)}"


def count(config: Mapping[str, Any], key: str, default: int) -> int:
    """Read a positive whole number out of a config.

    Raises:
        IntegrityError: it is something else.
    """
    number = config.get(key, default)
    if type(number) is not int or not 0 < number < 1 << 31:
        raise IntegrityError(f"config.json: {key} is {number!r}, not a positive whole number")
    if key.endswith("layers") and number > _MOST_LAYERS:
        raise IntegrityError(f"config.json: {key} is {number}: no model has so many")
    return number


def linear(name: str, outputs: int, inputs: int) -> dict[str, Shape]:
    """Return a dense layer's tensors."""
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def norm(name: str, width: int) -> dict[str, Shape]:
    """Return a LayerNorm's tensors."""
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


@dataclass(frozen=True, slots=True)
class BertSizes:
    """The lengths that BERT's tensors have."""

    hidden: int
    inner: int
    layers: int
    words: int
    positions: int
    types: int

    @classmethod
    def of(cls, config: Mapping[str, Any], **defaults: int) -> BertSizes:
        """Read them; what a config leaves out is `defaults`, else StructBERT base's."""
        named = {"vocab_size": 30522, "max_position_embeddings": 512, "type_vocab_size": 2} | defaults
        return cls(
            hidden=count(config, "hidden_size", 768),
            inner=count(config, "intermediate_size", 3072),
            layers=count(config, "num_hidden_layers", 12),
            words=count(config, "vocab_size", named["vocab_size"]),
            positions=count(config, "max_position_embeddings", named["max_position_embeddings"]),
            types=count(config, "type_vocab_size", named["type_vocab_size"]),
        )


def _embeddings(prefix: str, sizes: BertSizes) -> dict[str, Shape]:
    lengths = {"word": sizes.words, "position": sizes.positions, "token_type": sizes.types}
    tables = {f"{prefix}.{name}_embeddings.weight": (length, sizes.hidden) for name, length in lengths.items()}
    return tables | norm(f"{prefix}.LayerNorm", sizes.hidden)


def _bert_encoder(prefix: str, sizes: BertSizes) -> dict[str, Shape]:
    shapes = _embeddings(f"{prefix}.embeddings", sizes)
    for number in range(sizes.layers):
        layer = f"{prefix}.encoder.layer.{number}"
        for part in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= linear(f"{layer}.attention.{part}", sizes.hidden, sizes.hidden)
        shapes |= norm(f"{layer}.attention.output.LayerNorm", sizes.hidden)
        shapes |= linear(f"{layer}.intermediate.dense", sizes.inner, sizes.hidden)
        shapes |= linear(f"{layer}.output.dense", sizes.hidden, sizes.inner)
        shapes |= norm(f"{layer}.output.LayerNorm", sizes.hidden)
    return shapes


def _word_prediction(name: str, dense: str, layer_norm: str, sizes: BertSizes) -> dict[str, Shape]:
    transform = linear(f"{name}.{dense}", sizes.hidden, sizes.hidden) | norm(f"{name}.{layer_norm}", sizes.hidden)
    return {f"{name}.bias": (sizes.words,), **transform}


def sbert(config: Mapping[str, Any]) -> Layout:
    """Lay out StructBERT: BERT, with whatever heads the checkpoint has."""
    sizes = BertSizes.of(config)
    groups = {
        "bert.pooler": linear("bert.pooler.dense", sizes.hidden, sizes.hidden),
        "cls.predictions": _word_prediction("cls.predictions", "transform.dense", "transform.LayerNorm", sizes),
        "cls.seq_relationship": linear("cls.seq_relationship", ANY, sizes.hidden),
        "classifier": linear("classifier", ANY, sizes.hidden),
        "qa_outputs": linear("qa_outputs", ANY, sizes.hidden),
    }
    return Layout(_bert_encoder("bert", sizes), groups)


def veco(config: Mapping[str, Any]) -> Layout:
    """Lay out VECO's encoder: RoBERTa, with whatever heads the checkpoint has."""
    sizes = BertSizes.of(config)
    out = linear("classifier.out_proj", ANY, sizes.hidden)
    groups = {
        "roberta.pooler": linear("roberta.pooler.dense", sizes.hidden, sizes.hidden),
        "lm_head": _word_prediction("lm_head", "dense", "layer_norm", sizes),
        "classifier.out_proj": linear("classifier.dense", sizes.hidden, sizes.hidden) | out,
        "classifier": linear("classifier", ANY, sizes.hidden),
        "qa_outputs": linear("qa_outputs", ANY, sizes.hidden),
    }
    return Layout(_bert_encoder("roberta", sizes), groups)


def palm(config: Mapping[str, Any]) -> Layout:
    """Lay out PALM, which is published whole: encoder, decoder and the encoder's pre-training heads."""
    sizes = BertSizes.of(config, vocab_size=21504, max_position_embeddings=2048, type_vocab_size=3)
    is_pre, is_apart = config.get("pre_ln", True), config.get("attn_separate", False)
    shapes = _embeddings("bert.embeddings", sizes)
    for number in range(sizes.layers):
        shapes |= _palm_encoder_layer(f"bert.encoder.layer.{number}", sizes, is_pre=is_pre, is_apart=is_apart)
    for number in range(count(config, "dec_hidden_layers", 12)):
        shapes |= _palm_decoder_layer(f"decoder.decoder.layer.{number}", sizes)
    shapes |= norm("bert.encoder.LayerNorm", sizes.hidden) if is_pre else {}
    shapes |= linear("bert.pooler.dense", sizes.hidden, sizes.hidden)
    shapes |= _word_prediction("cls.predictions", "transform.dense", "transform.LayerNorm", sizes)
    shapes |= linear("cls.seq_relationship", 3, sizes.hidden)
    return Layout(shapes | norm("decoder.decoder.final_layernorm", sizes.hidden))


def _palm_encoder_layer(layer: str, sizes: BertSizes, *, is_pre: bool, is_apart: bool) -> dict[str, Shape]:
    width = sizes.hidden
    norms = ("attention.LayerNorm", "LayerNorm") if is_pre else ("attention.output.LayerNorm", "output.LayerNorm")
    shapes: dict[str, Shape] = {}
    if is_apart:
        for part in ("query", "key", "value"):
            shapes |= linear(f"{layer}.attention.self.{part}", width, width)
    else:
        shapes |= linear(f"{layer}.attention.self.query_key_value", 3 * width, width)
    shapes |= linear(f"{layer}.attention.output.dense", width, width)
    shapes |= linear(f"{layer}.intermediate.dense", sizes.inner, width)
    shapes |= linear(f"{layer}.output.dense", width, sizes.inner)
    for name in norms:
        shapes |= norm(f"{layer}.{name}", width)
    return shapes


def _palm_decoder_layer(layer: str, sizes: BertSizes) -> dict[str, Shape]:
    width = sizes.hidden
    shapes = linear(f"{layer}.attention.query_key_value", 3 * width, width)
    shapes |= linear(f"{layer}.attention.dense", width, width)
    shapes |= linear(f"{layer}.cross_attention.query", width, width)
    shapes |= linear(f"{layer}.cross_attention.key_value", 2 * width, width)
    shapes |= linear(f"{layer}.cross_attention.dense", width, width)
    for name in ("input_layernorm", "post_attention_layernorm", "post_cross_attention_layernorm"):
        shapes |= norm(f"{layer}.{name}", width)
    shapes |= linear(f"{layer}.intermediate", sizes.inner, width)
    return shapes | linear(f"{layer}.output", width, sizes.inner)


def veco_nlg(config: Mapping[str, Any]) -> Layout:
    """Lay out VECO's encoder-decoder; its config is the one that fairseq's arguments were turned into."""
    width = count(config, "d_model", 1024)
    pad = config.get("pad_token_id", 1)
    rows = {
        "embed_tokens": count(config, "vocab_size", 250001),
        "embed_positions": count(config, "max_position_embeddings", 512) + pad + 1,
    }
    shapes: dict[str, Shape] = {"model.encoder.embed_tokens.weight": (rows["embed_tokens"], width)}
    for side in ("encoder", "decoder"):
        stack = f"model.{side}"
        shapes[f"{stack}.embed_positions.weight"] = (rows["embed_positions"], width)
        shapes |= norm(f"{stack}.layernorm_embedding", width)
        inner = count(config, f"{side}_ffn_dim", 4096)
        for number in range(count(config, f"{side}_layers", 24)):
            shapes |= _fairseq_layer(f"{stack}.layers.{number}", width, inner, is_decoder=side == "decoder")
    return Layout(shapes)


def _fairseq_layer(layer: str, width: int, inner: int, *, is_decoder: bool) -> dict[str, Shape]:
    shapes = linear(f"{layer}.fc1", inner, width) | linear(f"{layer}.fc2", width, inner)
    shapes |= norm(f"{layer}.final_layer_norm", width)
    for attention in ("self_attn", "encoder_attn") if is_decoder else ("self_attn",):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes |= linear(f"{layer}.{attention}.{part}", width, width)
        shapes |= norm(f"{layer}.{attention}_layer_norm", width)
    return shapes


_SEQUENCE = "T5EncoderForSequenceClassification"
# Which parts each head has, and how many vectors its classifier reads at once.
_T5_PARTS: Mapping[str, tuple[tuple[str, ...], int]] = {
    f"{_SEQUENCE}Simple": (("pooler",), 1),
    f"{_SEQUENCE}Mean": (("pooler",), 1),
    f"{_SEQUENCE}RE": (("fc_layer",), 3),
    f"{_SEQUENCE}MeanSubmeanObjmean": (("pooler", "fc_layer"), 3),
    f"{_SEQUENCE}FirstSubmeanObjmean": (("pooler", "fc_layer"), 3),
    f"{_SEQUENCE}REStartToken": (("fc_layer",), 3),
    f"{_SEQUENCE}REAttention": (("fc_layer",), 1),
    f"{_SEQUENCE}REMeanAttention": (("pooler", "fc_layer"), 2),
    f"{_SEQUENCE}REAttentionAlone": (("pooler", "fc_layer"), 1),
    "T5EncoderForTokenClassification": ((), 1),
    "T5EncoderForEntityRecognitionWithCRF": (("crf",), 1),
}
T5_ARCHITECTURES = tuple(_T5_PARTS)


def t5_encoder(config: Mapping[str, Any]) -> Layout:
    """Lay out a T5 encoder under the head that config.architectures names."""
    width = count(config, "d_model", 512)
    heads = count(config, "num_heads", 8)
    shapes: dict[str, Shape] = {"shared.weight": (count(config, "vocab_size", 32128), width)}
    for number in range(count(config, "num_layers", 6)):
        shapes |= _t5_block(f"encoder.block.{number}", config, width, heads)
    buckets = count(config, "relative_attention_num_buckets", 32)
    shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"] = (buckets, heads)
    shapes["encoder.final_layer_norm.weight"] = (width,)
    return Layout(shapes | _t5_head(config["architectures"][0], width))


def _t5_block(block: str, config: Mapping[str, Any], width: int, heads: int) -> dict[str, Shape]:
    inner, feed = heads * count(config, "d_kv", 64), count(config, "d_ff", 2048)
    attention, dense = f"{block}.layer.0.SelfAttention", f"{block}.layer.1.DenseReluDense"
    shapes: dict[str, Shape] = {f"{attention}.{part}.weight": (inner, width) for part in "qkv"}
    is_gated = str(config.get("feed_forward_proj", "relu")).startswith("gated-")
    for name in ("wi_0", "wi_1") if is_gated else ("wi",):
        shapes[f"{dense}.{name}.weight"] = (feed, width)
    shapes |= {f"{attention}.o.weight": (width, inner), f"{dense}.wo.weight": (width, feed)}
    return shapes | {f"{block}.layer.{number}.layer_norm.weight": (width,) for number in (0, 1)}


def _t5_head(architecture: str, width: int) -> dict[str, Shape]:
    parts, vectors = _T5_PARTS[architecture]
    shapes: dict[str, Shape] = {}
    if "pooler" in parts:
        shapes |= linear("pooler.dense1", width, width) | linear("pooler.dense2", width, width)
    if "fc_layer" in parts:
        shapes |= linear("fc_layer.0", width, width) | linear("classifier.0", ANY, vectors * width)
    elif "crf" in parts:
        shapes |= {"crf.start_transitions": (ANY,), "crf.end_transitions": (ANY,), "crf.transitions": (ANY, ANY)}
        shapes |= linear("position_wise_ff", ANY, width)
    else:
        shapes |= linear("classifier", ANY, width)
    return shapes
