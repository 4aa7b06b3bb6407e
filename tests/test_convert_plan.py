"""Which repos are originals of ours and what becomes of their small files: told by names and configs, without torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hubcache.convert.checkpoint import plan_conversion
from hubcache.convert.configs import from_fairseq, label_issues, labels, repaired
from hubcache.convert.families import FAMILIES
from hubcache.convert.report import Report
from hubcache.convert.safetensors import read_safetensors
from hubcache.convert.texts import tokenizer_config
from hubcache.errors import IntegrityError
from tests.support.converting import files_of

ROOT = Path(__file__).parents[1]
BIN = "pytorch_model.bin"


def family(folder: Path, config: object, *others: str, name: str = "org/model") -> str | None:
    """Lay out a repo and return the family that it is planned as."""
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    for other in others:
        (folder / other).parent.mkdir(exist_ok=True)
        (folder / other).write_bytes(b"")
    checkpoint = plan_conversion(files_of(folder), name=name)
    return None if checkpoint is None else checkpoint.family


# Which family.


@pytest.mark.parametrize(
    ("config", "files", "name", "expected"),
    [
        ({"model_type": "sbert"}, [BIN], "me/mine", "sbert"),
        ({"model_type": "palm"}, ["palm_model.pt"], "me/mine", "palm"),
        ({"model_type": "veco"}, [BIN], "me/mine", "veco"),
        ({"architectures": ["SbertForMaskedLM"]}, [BIN], "me/mine", "sbert"),
        ({}, ["palm_model.pt"], "me/mine", "palm"),
        ({}, [BIN], "StructBERT/english_sbert-large-std-512", "sbert"),
        ({}, [BIN], "https://host/StructBERT/en.tar.gz", "sbert"),
        ({}, [BIN], "xtreme-released-veco", "veco"),
        ({"model_type": "bert"}, [BIN], "org/structbert-zh", "sbert"),
        ({"model_type": "xlm-roberta"}, [BIN], "xtreme-released-veco", "veco"),
        ({"model_type": "roberta"}, [BIN], "veco_large", "veco"),
        (None, ["model.pt", "dict.txt"], "me/mine", "veco_nlg"),
        ({"model_type": "t5", "architectures": ["T5EncoderForTokenClassification"]}, [BIN], "me/mine", "t5_encoder"),
        ({"model_type": "t5", "architectures": ["T5ForConditionalGeneration"]}, [BIN], "me/mine", None),
        ({"model_type": "bert"}, [BIN], "google/bert-base", None),
        ({"model_type": "gpt2"}, [BIN], "org/structbert", None),
        ({"model_type": "xlm-roberta"}, [BIN], "org/structbert", None),
        ({"model_type": "bert"}, [BIN, "modules.json"], "org/sbert-base", None),
        ({"model_type": ["sbert"]}, [BIN], "org/structbert", None),
        ({}, [BIN], "org/palmyra-vecord", None),
        ({"model_type": "sbert"}, [], "me/mine", None),
        (None, [BIN], "org/structbert", None),
    ],
)
def test_the_family_is_told_by_config_then_files_then_name(
    config: dict[str, Any] | None, files: list[str], name: str, expected: str | None, tmp_path: Path
) -> None:
    assert family(tmp_path, config, *files, name=name) == expected


def test_what_from_pretrained_loads_as_it_is_needs_no_conversion(tmp_path: Path) -> None:
    config = {"model_type": "sbert", "architectures": ["SbertModel"]}
    assert family(tmp_path, config, "model.safetensors") is None


def test_what_loads_as_it_is_is_still_made_portable(tmp_path: Path) -> None:
    family(tmp_path, {"model_type": "sbert", "architectures": ["SbertModel"]}, "model.safetensors")
    checkpoint = plan_conversion(files_of(tmp_path), name="me/mine", portable=True)
    assert checkpoint is not None
    assert checkpoint.weights == ("model.safetensors",)


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\xff"])
def test_a_broken_config_of_a_repo_that_is_ours_is_told(text: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="no JSON object"):
        family(tmp_path, text, BIN, name="structbert")


def test_an_index_that_names_what_is_not_there_is_told(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin.index.json").write_text('{"weight_map": {"a": "one.bin", "b": "two.bin"}}')
    with pytest.raises(IntegrityError, match=r"one\.bin, two\.bin"):
        family(tmp_path, {"model_type": "sbert"})


def test_planning_imports_neither_torch_nor_transformers(tmp_path: Path) -> None:
    family(tmp_path, {"model_type": "sbert"}, BIN, "vocab.txt")
    code = (
        "import sys, pathlib, hubcache.convert.checkpoint as c\n"
        f"p = pathlib.Path({str(tmp_path)!r})\n"
        "assert c.plan_conversion({f.name: f for f in p.iterdir()}, name='x').kept == ('vocab.txt',)\n"
        "assert not {'torch', 'transformers', 'numpy', 'safetensors'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Configs.


def test_what_says_nothing_leaves_the_config_and_what_nobody_knows_stays() -> None:
    changes = repaired(
        {"max_length": 20, "pruned_heads": {}, "eos_token_id": None, "attention_type": "self", "top_p": 1.0}
    )
    assert changes.config == {"attention_type": "self"}
    assert changes.notes == (
        "config.json: left out what says nothing to transformers 5: eos_token_id, max_length, pruned_heads, top_p",
    )


def test_no_adversarial_loss_is_not_the_default_one() -> None:
    assert repaired({"adv_grad_factor": None}).config == {"adv_grad_factor": None}


def test_true_is_no_number_that_says_nothing() -> None:
    assert repaired({"num_beams": True}).generation == {"num_beams": True}


def test_settings_of_generation_leave_the_config_for_their_own_file() -> None:
    changes = repaired({"num_beams": 4, "hidden_size": 8})
    assert (changes.config, changes.generation) == ({"hidden_size": 8}, {"num_beams": 4})


@pytest.mark.parametrize(
    ("config", "length", "issues"),
    [
        ({}, 3, 0),
        ({"num_labels": 3}, 3, 0),
        ({"id2label": {"0": "a", "1": "b"}}, 2, 0),
        ({"id2label": {"0": "a", "1": "b"}}, 3, 1),
        ({"num_labels": 2}, 3, 1),
        ({"num_labels": 2}, None, 0),
    ],
)
def test_a_heads_classes_are_the_configs(config: dict[str, Any], length: int | None, issues: int) -> None:
    assert len(label_issues(config, length)) == issues


def test_classes_without_names_get_transformers_names() -> None:
    assert labels({}, 3) == {
        "id2label": {"0": "LABEL_0", "1": "LABEL_1", "2": "LABEL_2"},
        "label2id": {"LABEL_0": 0, "LABEL_1": 1, "LABEL_2": 2},
    }


ARGUMENTS = {
    "encoder_embed_dim": 8, "encoder_ffn_embed_dim": 16, "decoder_ffn_embed_dim": 24, "encoder_attention_heads": 2,
    "decoder_attention_heads": 4, "encoder_layers": 3, "decoder_layers": 24, "keep_decoder_layers": "18,19,20",
    "activation_fn": "gelu", "dropout": 0.3, "no_scale_embedding": False,
}  # fmt: skip


def test_fairseqs_arguments_become_a_config() -> None:
    config = from_fairseq(ARGUMENTS, words=100, position_rows=514)
    assert config == {
        "vocab_size": 100, "max_position_embeddings": 512, "pad_token_id": 1, "eos_token_id": 2, "d_model": 8,
        "encoder_ffn_dim": 16, "decoder_ffn_dim": 24, "encoder_attention_heads": 2, "decoder_attention_heads": 4,
        "encoder_layers": 3, "decoder_layers": 3, "activation_function": "gelu", "dropout": 0.3,
        "scale_embedding": True, "is_encoder_decoder": True,
    }  # fmt: skip


def test_another_architecture_of_fairseqs_is_refused_with_every_reason() -> None:
    with pytest.raises(IntegrityError) as caught:
        from_fairseq({**ARGUMENTS, "encoder_normalize_before": True, "activation_fn": "swish"}, 100, 514)
    assert caught.value.issues == ("args.encoder_normalize_before: True, not False", "args.activation_fn: 'swish'")


# Tokenizers.


@pytest.mark.parametrize(
    ("name", "original", "expected"),
    [
        ("sbert", None, "BertTokenizer"),
        ("palm", {"tokenizer_class": "PalmTokenizer"}, "BertTokenizer"),
        ("sbert", {"tokenizer_class": "SbertTokenizerFast"}, "BertTokenizer"),
        ("sbert", {"do_lower_case": False}, "BertTokenizer"),
        ("veco", None, "VecoTokenizer"),
        ("veco", {"tokenizer_class": "XLMRobertaTokenizer"}, "VecoTokenizer"),
        ("veco_nlg", None, "VecoNlgTokenizer"),
        ("sbert", {"tokenizer_class": "BertTokenizer"}, None),
        ("sbert", {"tokenizer_class": "SomebodysTokenizer"}, None),
        ("t5_encoder", None, None),
    ],
)
def test_the_tokenizer_is_named_as_today(name: Any, original: dict[str, Any] | None, expected: str | None) -> None:
    made = tokenizer_config(original, FAMILIES[name], has_vocabulary=True, portable=False)
    assert (made or {}).get("tokenizer_class") == expected
    assert made is None or made.items() >= {k: v for k, v in (original or {}).items() if k != "tokenizer_class"}.items()


def test_code_of_the_archives_own_is_neither_kept_nor_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer_config.json").write_text('{"auto_map": {"AutoTokenizer": ["evil.Tokenizer", null]}}')
    config = {"model_type": "sbert", "auto_map": {"AutoModel": "evil.Model"}}
    family(tmp_path, config, BIN, "evil.py", "vocab.txt", "README.md")
    checkpoint = plan_conversion(files_of(tmp_path), name="me/mine", portable=True)
    assert checkpoint is not None
    assert checkpoint.kept == ("README.md", "vocab.txt")
    assert checkpoint.tokenizer == {"tokenizer_class": "BertTokenizer"}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_portable_repos_own_code_is_named_where_transformers_has_no_such_class(name: Any) -> None:
    made = tokenizer_config(None, FAMILIES[name], has_vocabulary=True, portable=True) or {}
    named = {"veco": "veco.VecoTokenizer", "veco_nlg": "veco.VecoNlgTokenizer"}
    assert made.get("auto_map", {}).get("AutoTokenizer", [None])[0] == named.get(name)


def test_a_repo_without_a_vocabulary_gets_no_tokenizer() -> None:
    assert tokenizer_config(None, FAMILIES["sbert"], has_vocabulary=False, portable=False) is None


# The format, and the report.


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        (1 << 60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (4).to_bytes(8, "little") + b"[[[[",
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}12345678',
        b'{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}12345678',
        b'{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}12345678',
        b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}}12345678',
        b'{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}12345678',
        b'{"a":{"dtype":"F32","shape":2,"data_offsets":[0,8]}}12345678',
        b'{"a":3}12345678',
    ],
)
def test_a_broken_safetensors_file_is_told(content: bytes, tmp_path: Path) -> None:
    header = content[: content.rfind(b"}") + 1]
    whole = len(header).to_bytes(8, "little") + content if content.startswith(b"{") else content
    (tmp_path / "model.safetensors").write_bytes(whole)
    with pytest.raises(IntegrityError, match=r"model\.safetensors"):
        read_safetensors(tmp_path / "model.safetensors")


def test_a_report_of_many_tensors_is_short() -> None:
    report = Report(
        renamed=tuple((f"a{n}", f"b{n}") for n in range(100)), ignored=(("c", "why"), ("d", "other"), ("e", "why"))
    )
    assert report.lines == (
        "renamed a0 -> b0, a1 -> b1, a2 -> b2 and 97 more",
        "left out d: other",
        "left out c, e: why",
    )
