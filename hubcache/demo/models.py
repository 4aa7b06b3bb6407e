"""Small, loadable BERT checkpoints made from a seed by the standard library alone; nothing here is trained.

The weights are random. What is real is the shape: every file that transformers, tokenizers and a
SparseZoo client look for is there, and the same seed gives the same bytes.
"""

from __future__ import annotations

import gzip
import io
import json
import string
import struct
import tarfile
import zipfile
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import prod
from random import Random

HIDDEN, LAYERS, HEADS, INTERMEDIATE, POSITIONS = 32, 2, 2, 64, 128
SENTENCES = ("the quick brown fox jumps over the lazy dog.", "a small model that loads without a network!")
SENTIMENTS = ("negative", "positive")

_Shapes = dict[str, tuple[int, ...]]

_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]",
            "mask_token": "[MASK]"}  # fmt: skip
_ENDINGS = "able age al ance ed en ence er ers es est ful ing ion ions ish ism ist ity ive less ly ment ness or ous th"
_WORDS = """
    a about after again all also always an and another any are as at back bad be because been before best better big
    boring both bright brown but by cache came can child city clear close cold come copy could dark data day did do
    dog down each early easy end enough even every eye far fast few file files film find fine first for found fox
    friend from full funny gave get give go good got great had half hand happy hard has have he heard heart help her
    here high him his home hope hot house how hub i if in into is it its jumps just keep kind knew know last late lazy
    learn left less life light like line little load loads local long look lost loud love low made make man many may
    me mirror model models moment month more morning most mountain move movie much music must my near network never
    new next night no not nothing now of off offline often old on once one online only open or other our out over own
    part people perfect place play plot point poor pull quick quiet rain read real red rest right river road room run
    sad said same saw say scene school sea second see seen sentence set she short should show side simple slow small
    snow so some song soon stay still stop store story strong such summer sun take tell terrible than that the their
    them then there these they thing think this those though time to today together too town tree true try turn two
    under until up us use used very wait walk want warm was watch water way we week well went were what when where
    which while white who why will wind winter with without wonderful word words work world worst would write wrong
    year yes yet you young your
"""


def vocabulary() -> list[str]:
    """List the WordPiece tokens by id: any ASCII letter, digit or mark has one, so plain text never meets [UNK]."""
    characters = string.ascii_lowercase + string.digits
    pieces = [f"##{piece}" for piece in (*characters, *_ENDINGS.split())]
    # A one-letter word ("a") is among the characters already: each token keeps its first place.
    return list(dict.fromkeys((*_SPECIAL.values(), *string.punctuation, *characters, *pieces, *_WORDS.split())))


def tiny_bert(seed: int, *, labels: Sequence[str] = ()) -> dict[str, bytes]:
    """Make the files of a BERT checkpoint: an encoder, or with `labels` a sequence classifier.

    The weights follow BERT's initialisation: normal with deviation 0.02, biases 0, LayerNorm 1 and 0.
    Under 200 kB; equal arguments give equal bytes.
    """
    vocab = vocabulary()
    return {
        "README.md": _card(seed, labels),
        "config.json": _json(_config(len(vocab), labels)),
        "model.safetensors": _safetensors(_shapes(len(vocab), labels), Random(seed)),
        "special_tokens_map.json": _json(_SPECIAL),
        "tokenizer.json": _json(_tokenizer(vocab)),
        "tokenizer_config.json": _json(_tokenizer_config()),
        "vocab.txt": "".join(f"{token}\n" for token in vocab).encode(),
    }


def zoo_model(seed: int) -> dict[str, bytes]:
    """Make the files of a SparseZoo model: a two-label classifier under the zoo's names.

    There is no model.onnx: this checkpoint is never exported, and a stand-in would be a lie.
    """
    files = tiny_bert(seed, labels=SENTIMENTS)
    card = files.pop("README.md")
    samples = {f"inp-{n:04}.npz": _npz(_encode(sentence)) for n, sentence in enumerate(SENTENCES)}
    return {
        **{f"training/{name}": content for name, content in files.items()},
        **{f"deployment/{name}": files[name] for name in files if name.endswith(".json")},
        "model.md": card,
        "recipe.md": _RECIPE.encode(),
        "sample-inputs.tar.gz": tarball(samples, "sample-inputs"),
    }


def tarball(files: Mapping[str, bytes], folder: str) -> bytes:
    """Pack files under one folder as a .tar.gz; owner, mode and time are fixed, so equal files give equal bytes."""
    packed = io.BytesIO()
    with (
        gzip.GzipFile(filename="", mode="wb", fileobj=packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        top = tarfile.TarInfo(folder)
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        archive.addfile(top)
        for name, content in sorted(files.items()):
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return packed.getvalue()


def _safetensors(shapes: _Shapes, random: Random) -> bytes:
    """Write float32 tensors: the header's length as u64, the JSON header padded to 8 bytes, the values in order."""
    names = sorted(shapes)
    ends = list(accumulate(4 * prod(shapes[name]) for name in names))
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    for name, begin, end in zip(names, [0, *ends], ends, strict=False):
        header[name] = {"dtype": "F32", "shape": shapes[name], "data_offsets": [begin, end]}
    head = json.dumps(header, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8)
    values = b"".join(_floats(_initial(name, prod(shapes[name]), random)) for name in names)
    return struct.pack("<Q", len(head)) + head + values


def _floats(values: Sequence[float]) -> bytes:
    return struct.pack(f"<{len(values)}f", *values)


def _initial(name: str, count: int, random: Random) -> Sequence[float]:
    if name.endswith(".bias"):
        return [0.0] * count
    if name.endswith("LayerNorm.weight"):
        return [1.0] * count
    return [random.gauss(0.0, 0.02) for _ in range(count)]


def _shapes(tokens: int, labels: Sequence[str]) -> _Shapes:
    encoder = _encoder_shapes(tokens)
    if not labels:
        return encoder
    return {f"bert.{name}": shape for name, shape in encoder.items()} | _linear("classifier", len(labels), HIDDEN)


def _encoder_shapes(tokens: int) -> _Shapes:
    shapes: _Shapes = {
        "embeddings.word_embeddings.weight": (tokens, HIDDEN),
        "embeddings.position_embeddings.weight": (POSITIONS, HIDDEN),
        "embeddings.token_type_embeddings.weight": (2, HIDDEN),
        **_norm("embeddings"),
        **_linear("pooler.dense", HIDDEN, HIDDEN),
    }
    for layer in (f"encoder.layer.{n}" for n in range(LAYERS)):
        for projection in ("self.query", "self.key", "self.value", "output.dense"):
            shapes |= _linear(f"{layer}.attention.{projection}", HIDDEN, HIDDEN)
        shapes |= _norm(f"{layer}.attention.output") | _norm(f"{layer}.output")
        shapes |= _linear(f"{layer}.intermediate.dense", INTERMEDIATE, HIDDEN)
        shapes |= _linear(f"{layer}.output.dense", HIDDEN, INTERMEDIATE)
    return shapes


def _linear(name: str, outputs: int, inputs: int) -> _Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str) -> _Shapes:
    return {f"{name}.LayerNorm.weight": (HIDDEN,), f"{name}.LayerNorm.bias": (HIDDEN,)}


def _config(tokens: int, labels: Sequence[str]) -> dict[str, object]:
    config: dict[str, object] = {
        "architectures": ["BertForSequenceClassification" if labels else "BertModel"],
        "model_type": "bert",
        "attention_probs_dropout_prob": 0.1,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "hidden_size": HIDDEN,
        "initializer_range": 0.02,
        "intermediate_size": INTERMEDIATE,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": POSITIONS,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "pad_token_id": 0,
        "type_vocab_size": 2,
        "vocab_size": tokens,
    }
    if labels:
        config["id2label"] = {str(n): label for n, label in enumerate(labels)}
        config["label2id"] = {label: n for n, label in enumerate(labels)}
    return config


def _tokenizer(vocab: Sequence[str]) -> dict[str, object]:
    """Write the tokenizers library's JSON: the whole WordPiece pipeline of an uncased BERT."""
    ids = {token: n for n, token in enumerate(vocab)}
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    bert = {"clean_text": True, "handle_chinese_chars": True, "strip_accents": None, "lowercase": True}
    wordpiece = {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}
    first = [_special("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, _special("[SEP]", 0)]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, _special("[SEP]", 1)]
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[t], "content": t, **flags, "special": True} for t in _SPECIAL.values()],
        "normalizer": {"type": "BertNormalizer", **bert},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": first,
            "pair": first + second,
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", **wordpiece, "vocab": ids},
    }


def _special(token: str, segment: int) -> dict[str, object]:
    return {"SpecialToken": {"id": token, "type_id": segment}}


def _tokenizer_config() -> dict[str, object]:
    casing = {"do_lower_case": True, "strip_accents": None, "tokenize_chinese_chars": True}
    return {"tokenizer_class": "BertTokenizer", "model_max_length": POSITIONS, **casing, **_SPECIAL}


def _encode(sentence: str) -> dict[str, list[int]]:
    """Encode a sentence whose words and marks are all in the vocabulary, as a SparseZoo sample holds it."""
    marks = str.maketrans({mark: f" {mark} " for mark in string.punctuation})
    vocab = vocabulary()
    ids = [vocab.index(token) for token in ("[CLS]", *sentence.translate(marks).split(), "[SEP]")]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "token_type_ids": [0] * len(ids)}


def _npz(arrays: Mapping[str, Sequence[int]]) -> bytes:
    """Write 1-D int64 arrays as numpy's .npz: a zip of .npy files (NEP 1, version 1.0)."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, values in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.create_system = 3  # else it tells which system wrote it
            archive.writestr(member, _npy(values))
    return packed.getvalue()


def _npy(values: Sequence[int]) -> bytes:
    head = f"{{'descr': '<i8', 'fortran_order': False, 'shape': ({len(values)},), }}"
    # Magic, version and length take 10 bytes; the header ends in a newline on a multiple of 64.
    head += " " * (-(len(head) + 11) % 64) + "\n"
    start = struct.pack("<8sH", b"\x93NUMPY\x01\x00", len(head))
    return start + head.encode() + struct.pack(f"<{len(values)}q", *values)


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _card(seed: int, labels: Sequence[str]) -> bytes:
    task = "text-classification" if labels else "feature-extraction"
    front = f"---\nlibrary_name: transformers\nlicense: apache-2.0\npipeline_tag: {task}\n---\n"
    text = (
        f"# Tiny BERT\n\nRandom weights from seed {seed}, made on the spot by `hubcache demo`. It loads, tokenises and"
        " answers like\nany BERT, and it has learned nothing.\n"
    )
    return (front + text).encode()


_RECIPE = """---
version: 1.1.0

num_epochs: 2
init_lr: 1.0e-3
final_lr: 0.0

training_modifiers:
  - !EpochRangeModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
  - !LearningRateFunctionModifier
      start_epoch: 0.0
      end_epoch: eval(num_epochs)
      lr_func: linear
      init_lr: eval(init_lr)
      final_lr: eval(final_lr)
---
# Dense fine-tuning of the tiny BERT

Two epochs at a falling learning rate, no pruning and no quantisation.
"""
