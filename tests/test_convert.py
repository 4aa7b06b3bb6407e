"""Original checkpoints become folders that from_pretrained loads whole, and that compute what the originals did."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, T5Config

from hubcache.convert.checkpoint import plan_conversion
from hubcache.convert.families import FAMILIES
from hubcache.convert.layouts import ANY
from hubcache.core.artifact import RepoPath
from hubcache.errors import IntegrityError
from hubcache.models import palm, sbert, t5_encoder, veco
from hubcache.models.register import register
from tests.support.converting import Snapshot, convert_files, files_of, unpacked
from tests.support.goldens import golden

pytestmark = pytest.mark.train

ROOT = Path(__file__).parents[1]
TARBALLS = "sofa/tarballs"
# The tolerance that goldens/sofa/README.md states for float32.
NEAR = {"rtol": 0, "atol": 2e-6}

SBERT = {
    "english_sbert-large-std-512": "english_sbert-large-std-512",
    "chinese_sbert-large-std-512": "chinese_sbert-large-std-512",
    "variants/english_sbert-large-std-512.nested": "english_sbert-large-std-512",
    "variants/chinese_sbert-large-std-512.nested": "chinese_sbert-large-std-512",
    "variants/chinese_sbert-large-std-512.legacy": "chinese_sbert-large-std-512__legacy",
}
PALM = {
    "chinese-palm-base": "chinese-palm-base",
    "variants/chinese-palm-base.fp16_no_model_type": "chinese-palm-base__fp16",
}
VECO = {
    "xtreme-released-veco": "xtreme-released-veco",
    "variants/xtreme-released-veco.model_type_xlm-roberta": "xtreme-released-veco__xlmr",
}
CLASSES = {
    **dict.fromkeys(SBERT, sbert.SbertForPreTraining),
    **dict.fromkeys(PALM, palm.PalmForConditionalGeneration),
    **dict.fromkeys(VECO, veco.VecoForMaskedLM),
    "veco-large": veco.VecoForConditionalGeneration,
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def archived(tmp_path: Path) -> Callable[[str], Snapshot]:
    """Convert one of the golden archives."""

    def convert(name: str) -> Snapshot:
        files = unpacked(golden(f"{TARBALLS}/{name}.tar.gz"), tmp_path / "unpacked")
        return convert_files(files, tmp_path / "converted", name=f"alice-open/{name.rpartition('/')[2]}")

    return convert


def loaded(snapshot: Snapshot, model: Any) -> Any:
    """Load all of a snapshot, or fail."""
    made, info = model.from_pretrained(snapshot.folder, output_loading_info=True)
    assert not any(info.values()), info
    return made.eval()


def expected(name: str) -> tuple[dict[str, Any], Mapping[str, Any]]:
    arrays = np.load(golden(f"{TARBALLS}/expected/{name}.npz"))
    tensors = {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays}
    return {key[3:]: value for key, value in tensors.items() if key.startswith("in/")}, tensors


def config_of(snapshot: Snapshot) -> dict[str, Any]:
    return json.loads((snapshot.folder / "config.json").read_text())


# From the archive to the numbers.


@pytest.mark.parametrize("name", CLASSES)
def test_the_class_that_the_config_names_loads_every_tensor_and_makes_none(
    name: str, archived: Callable[[str], Snapshot]
) -> None:
    snapshot = archived(name)
    assert config_of(snapshot)["architectures"] == [CLASSES[name].__name__]
    loaded(snapshot, CLASSES[name])


@pytest.mark.parametrize("name", SBERT)
def test_a_converted_structbert_computes_what_the_original_did(name: str, archived: Callable[[str], Snapshot]) -> None:
    model = loaded(archived(name), sbert.SbertForPreTraining)
    inputs, wanted = expected(SBERT[name])
    with torch.no_grad():
        encoded, scores = model.bert(**inputs), model(**inputs).prediction_logits
    torch.testing.assert_close(encoded.last_hidden_state, wanted["last_hidden_state"], **NEAR)
    torch.testing.assert_close(encoded.pooler_output, wanted["pooler_output"], **NEAR)
    torch.testing.assert_close(scores, wanted["mlm_logits"], **NEAR)


@pytest.mark.parametrize("name", PALM)
def test_a_converted_palm_computes_what_the_original_did(name: str, archived: Callable[[str], Snapshot]) -> None:
    model = loaded(archived(name), palm.PalmForConditionalGeneration)
    inputs, wanted = expected(PALM[name])
    with torch.no_grad():
        _, logits = model(**inputs)
    torch.testing.assert_close(logits, wanted["logits"], **NEAR)


@pytest.mark.parametrize("name", VECO)
def test_a_converted_veco_computes_what_the_original_did(name: str, archived: Callable[[str], Snapshot]) -> None:
    model = loaded(archived(name), veco.VecoForMaskedLM)
    inputs, wanted = expected(VECO[name])
    with torch.no_grad():
        output = model.roberta(**inputs)
    torch.testing.assert_close(output.last_hidden_state, wanted["last_hidden_state"], **NEAR)


def test_a_converted_veco_nlg_computes_what_fairseq_did(archived: Callable[[str], Snapshot]) -> None:
    model = loaded(archived("veco-large"), veco.VecoForConditionalGeneration)
    inputs, wanted = np.load(golden("sofa/veco_nlg/inputs.npz")), np.load(golden("sofa/veco_nlg/outputs.npz"))
    source, target = torch.from_numpy(inputs["src_tokens"]), torch.from_numpy(inputs["prev_output_tokens"])
    with torch.no_grad():
        output = model(input_ids=source, decoder_input_ids=target, decoder_attention_mask=target.ne(1).long())
    torch.testing.assert_close(output.logits, torch.from_numpy(wanted["logits"]), **NEAR)


@pytest.mark.parametrize("name", [*SBERT, *PALM, *VECO])
def test_a_converted_repo_has_the_originals_token_ids(name: str, archived: Callable[[str], Snapshot]) -> None:
    register()
    wanted = json.loads(golden(f"{TARBALLS}/expected/{(SBERT | PALM | VECO)[name]}.tokenizer.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(archived(name).folder)
    told = tokenizer(wanted["texts"], padding="max_length", truncation=True, max_length=32)
    assert told["input_ids"] == wanted["fast"]["input_ids"]


@pytest.mark.parametrize("name", ["chinese_sbert-large-std-512", "chinese-palm-base"])
def test_a_machine_without_hubcache_splits_text_alike(name: str, archived: Callable[[str], Snapshot]) -> None:
    wanted = json.loads(golden(f"{TARBALLS}/expected/{name}.tokenizer.json").read_text())
    snapshot = archived(name)
    (snapshot.folder / "config.json").unlink()
    tokenizer = AutoTokenizer.from_pretrained(snapshot.folder)
    assert tokenizer(wanted["texts"])["input_ids"] == [row[: row.index(102) + 1] for row in wanted["fast"]["input_ids"]]


# Which tensors there are.


def layout_of(family: str, config: Mapping[str, Any], groups: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return what the table has for a config, with these of its groups."""
    layout = FAMILIES[family].layout(config)
    chosen = [layout.required, *(group for name, group in layout.groups.items() if name in groups)]
    return {name: shape for part in chosen for name, shape in part.items()}


def assert_same_shapes(table: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]]) -> None:
    assert table.keys() == found.keys()
    for name, shape in table.items():
        assert len(shape) == len(found[name])
        assert all(mine in {ANY, theirs} for mine, theirs in zip(shape, found[name], strict=True)), name


GOLDEN_GROUPS = {
    "sbert/base": {"bert.pooler"},
    "sbert/pretraining": {"bert.pooler", "cls.predictions", "cls.seq_relationship"},
    "sbert/mlm": {"cls.predictions"},
    "sbert/qa": {"qa_outputs"},
    "sbert/multichoice": {"bert.pooler", "classifier"},
    "sbert/seqcls_single": {"bert.pooler", "classifier"},
    "veco/base": {"roberta.pooler"},
    "veco/seqcls_single": {"classifier.out_proj"},
    "veco/tokcls": {"classifier"},
    "veco/multichoice": {"roberta.pooler", "classifier"},
    "palm/default_preln": set(),
    "palm/preln_separate": set(),
}


@pytest.mark.parametrize("name", GOLDEN_GROUPS)
def test_the_table_has_the_keys_that_the_reference_saved(name: str) -> None:
    folder = golden(f"sofa/{name}")
    keys = json.loads((folder / "meta.json").read_text())["state_dict_keys"]
    naming = FAMILIES[name.partition("/")[0]].naming
    ours = {naming.rename(key): tuple(shape) for key, shape in keys.items()}
    kept = {key: shape for key, shape in ours.items() if naming.why_ignored(key) is None and key not in naming.tied}
    config = json.loads((folder / "config.json").read_text())
    assert_same_shapes(layout_of(name.partition("/")[0], config, GOLDEN_GROUPS[name]), kept)


LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
T5 = {"d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 2, "num_heads": 4, "vocab_size": 32}
MODELS = {
    "sbert": (sbert.SbertForPreTraining, sbert.SbertConfig(**LARGE), GOLDEN_GROUPS["sbert/pretraining"]),
    # The reference saved the inner model's names.
    "palm": (palm.PalmModel, palm.PalmConfig(), set()),
    "palm-post": (palm.PalmModel, palm.PalmConfig(pre_ln=False, attn_separate=True), set()),
    "veco": (veco.VecoForMaskedLM, veco.VecoConfig(**LARGE, type_vocab_size=1, vocab_size=250002), {"lm_head"}),
    "veco_nlg": (veco.VecoForConditionalGeneration, veco.VecoNlgConfig(), set()),
    **{
        f"t5_encoder-{head.__name__}": (head, T5Config(**T5, architectures=[head.__name__]), set())
        for head in (*t5_encoder.SEQUENCE_CLASSIFIERS, *t5_encoder.TOKEN_CLASSIFIERS)
    },
    "t5_encoder-gated": (
        t5_encoder.T5EncoderForTokenClassification,
        T5Config(**T5, feed_forward_proj="gated-gelu", architectures=["T5EncoderForTokenClassification"]),
        set(),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_table_has_what_the_real_class_saves(name: str) -> None:
    model_class, config, groups = MODELS[name]
    with torch.device("meta"):
        model = model_class(config)
    tied = model.all_tied_weights_keys
    saved = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items() if key not in tied}
    assert_same_shapes(layout_of(name.partition("-")[0], config.to_dict(), groups), saved)


# Every way in which the same weights are published.


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Return a folder with StructBERT's files, weights excepted."""
    files = unpacked(golden(f"{TARBALLS}/english_sbert-large-std-512.tar.gz"), tmp_path / "unpacked")
    folder = tmp_path / "published"
    folder.mkdir()
    for path in ("config.json", "vocab.txt", "pytorch_model.bin"):
        (folder / path).write_bytes(files[RepoPath(path)].read_bytes())
    return folder


def weights_of(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def converted_bytes(folder: Path, name: str = "structbert") -> bytes:
    snapshot = convert_files(files_of(folder), folder.with_name(folder.name + "-converted"), name=name)
    return (snapshot.folder / "model.safetensors").read_bytes()


def save_again(folder: Path, target: Path, save: Callable[[dict[str, Any], Path], None]) -> None:
    """Publish the same repo with its weights saved in another way."""
    target.mkdir()
    for path in ("config.json", "vocab.txt"):
        (target / path).write_bytes((folder / path).read_bytes())
    save(weights_of(folder), target)


def save_legacy(weights: dict[str, Any], folder: Path) -> None:
    torch.save(weights, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def save_bare(weights: dict[str, Any], folder: Path) -> None:
    torch.save({key.removeprefix("bert."): value for key, value in weights.items()}, folder / "pytorch_model.bin")


def save_parallel(weights: dict[str, Any], folder: Path) -> None:
    torch.save({f"module.module.{key}": value for key, value in weights.items()}, folder / "pytorch_model.bin")


def save_wrapped(weights: dict[str, Any], folder: Path) -> None:
    state = {f"model.{key}": value for key, value in weights.items()}
    torch.save(
        {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: torch.ones(2)}}}, folder / "pytorch_model.bin"
    )


def save_gamma(weights: dict[str, Any], folder: Path) -> None:
    old = {".weight": ".gamma", ".bias": ".beta"}
    renamed = {
        key.replace(end, old[end]) if f"LayerNorm{end}" in key else key: value
        for key, value in weights.items()
        for end in (".weight", ".bias")
        if key.endswith(end) or (end == ".weight" and not key.endswith(".bias"))
    }
    torch.save(renamed, folder / "pytorch_model.bin")


def save_transposed(weights: dict[str, Any], folder: Path) -> None:
    columns = {key: value.t().contiguous().t() if value.dim() == 2 else value for key, value in weights.items()}
    torch.save(columns, folder / "pytorch_model.bin")


def save_in_shards(weights: dict[str, Any], folder: Path) -> None:
    names = {key: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, key in enumerate(weights)}
    for name in set(names.values()):
        torch.save({key: weights[key] for key in weights if names[key] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))


def save_safetensors(weights: dict[str, Any], folder: Path) -> None:
    save_file({key: value.clone() for key, value in weights.items()}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "bert", "architectures": ["BertModel"]}))


SAVERS = [
    save_legacy,
    save_bare,
    save_parallel,
    save_wrapped,
    save_gamma,
    save_transposed,
    save_in_shards,
    save_safetensors,
]


@pytest.mark.parametrize("save", SAVERS)
def test_the_same_weights_make_the_same_bytes_however_they_were_saved(
    save: Callable[[dict[str, Any], Path], None], published: Path, tmp_path: Path
) -> None:
    save_again(published, tmp_path / "other", save)
    assert converted_bytes(tmp_path / "other") == converted_bytes(published)


def test_the_file_is_what_the_safetensors_library_writes(published: Path, tmp_path: Path) -> None:
    ours = converted_bytes(published)
    (tmp_path / "ours.safetensors").write_bytes(ours)
    save_file(load_file(tmp_path / "ours.safetensors"), tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    assert (tmp_path / "theirs.safetensors").read_bytes() == ours


def test_every_tensor_is_written_or_told_of(published: Path, tmp_path: Path) -> None:
    snapshot = convert_files(files_of(published), tmp_path / "converted", name="structbert")
    originals = {new: old for old, new in snapshot.report.renamed}
    written = {originals.get(key, key) for key in load_file(snapshot.folder / "model.safetensors")}
    ignored = {name for name, _ in snapshot.report.ignored}
    assert written | ignored == set(weights_of(published))
    assert not written & ignored


def test_half_precision_stays_on_disk_and_is_computed_in_float32(archived: Callable[[str], Snapshot]) -> None:
    snapshot = archived("variants/chinese-palm-base.fp16_no_model_type")
    assert {tensor.dtype for tensor in load_file(snapshot.folder / "model.safetensors").values()} == {torch.float16}
    assert loaded(snapshot, palm.PalmForConditionalGeneration).dtype == torch.float32


def test_pickles_stay_behind_and_everything_else_comes_along(published: Path, tmp_path: Path) -> None:
    (published / "training_args.bin").write_bytes(b"whatever")
    (published / "README.md").write_text("read me")
    snapshot = convert_files(files_of(published), tmp_path / "converted", name="structbert")
    names = {"config.json", "tokenizer_config.json", "model.safetensors", "vocab.txt", "README.md"}
    assert {str(path) for path in files_of(snapshot.folder)} == names
    assert snapshot.report.left_behind == ("training_args.bin",)


# What is not whole.


def issues_of(published: Path, change: Callable[[dict[str, Any]], object]) -> tuple[str, ...]:
    """Change the weights and return what the conversion finds wrong with them."""
    weights = {key: value.clone() for key, value in weights_of(published).items()}
    change(weights)
    torch.save(weights, published / "pytorch_model.bin")
    checkpoint = plan_conversion(files_of(published), name="structbert")
    assert checkpoint is not None
    written: list[object] = []
    with pytest.raises(IntegrityError) as caught:
        checkpoint.convert(lambda *file: written.append(file))
    assert not written
    return caught.value.issues


def test_everything_that_is_wrong_is_told_at_once(published: Path) -> None:
    def change(weights: dict[str, Any]) -> None:
        del weights["bert.encoder.layer.1.output.dense.bias"]
        weights["bert.encoder.layer.7.output.dense.bias"] = torch.zeros(3)
        weights["bert.pooler.dense.weight"] = torch.zeros(2, 3)

    assert issues_of(published, change) == (
        "bert.encoder.layer.1.output.dense.bias: missing",
        "bert.pooler.dense.weight: its shape is [2, 3], not [64, 64]",
        "bert.encoder.layer.7.output.dense.bias [3]: unexpected",
    )


@pytest.mark.parametrize("name", ["cls.predictions.decoder.weight", "cls.predictions.decoder.bias"])
def test_a_tensor_that_differs_from_what_the_model_would_take_for_it_is_no_duplicate(
    name: str, published: Path
) -> None:
    [issue] = issues_of(published, lambda weights: weights[name].add_(1))
    assert issue.startswith(f"{name}: differs from ")


def test_a_head_is_there_as_a_whole_or_not_at_all(published: Path) -> None:
    issues = issues_of(published, lambda weights: weights.pop("cls.predictions.transform.dense.bias"))
    assert issues == ("cls.predictions.transform.dense.bias: missing, though the rest of cls.predictions is there",)


def test_two_tensors_do_not_become_one(published: Path) -> None:
    issues = issues_of(published, lambda weights: weights.update({"pooler.dense.bias": torch.zeros(64)}))
    assert issues == ("pooler.dense.bias: a second tensor that is called bert.pooler.dense.bias",)


def test_whole_numbers_are_no_weights(published: Path) -> None:
    issues = issues_of(published, lambda weights: weights.update({"bert.pooler.dense.bias": torch.arange(64)}))
    assert issues == ("bert.pooler.dense.bias: its numbers are I64, not floating-point",)


def test_what_stands_beside_the_tensors_is_known_or_an_issue(published: Path) -> None:
    issues = issues_of(published, lambda weights: weights.update({"epoch": 3, "vocabulary": ["a"]}))
    assert issues == ("vocabulary: a list",)


@pytest.mark.parametrize("layers", ["2", 2.0, True, 0, -1, 10**9])
def test_a_size_that_is_none_is_refused(layers: object, published: Path) -> None:
    config = json.loads((published / "config.json").read_text())
    (published / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    checkpoint = plan_conversion(files_of(published), name="structbert")
    assert checkpoint is not None
    with pytest.raises(IntegrityError, match="num_hidden_layers"):
        checkpoint.convert(lambda *file: None)


# Heads.


def with_head(published: Path, architecture: str | None, **config: Any) -> Snapshot:
    """Convert StructBERT with a classifier of three classes instead of its pre-training heads."""
    weights = {key: value for key, value in weights_of(published).items() if not key.startswith("cls.")}
    weights |= {"classifier.weight": torch.rand(3, 64), "classifier.bias": torch.rand(3)}
    torch.save(weights, published / "pytorch_model.bin")
    original = json.loads((published / "config.json").read_text())
    original |= config | ({"architectures": [architecture]} if architecture else {})
    (published / "config.json").write_text(json.dumps(original))
    return convert_files(files_of(published), published.with_name("converted"), name="structbert")


@pytest.mark.parametrize(
    ("told", "model_class"),
    [
        (None, sbert.SbertForSequenceClassification),
        ("BertForSequenceClassification", sbert.SbertForSequenceClassification),
        ("BertForTokenClassification", sbert.SbertForTokenClassification),
    ],
)
def test_a_fine_tuned_head_is_loaded_by_its_class(told: str | None, model_class: Any, published: Path) -> None:
    snapshot = with_head(published, told)
    model, info = model_class.from_pretrained(snapshot.folder, output_loading_info=True)
    assert config_of(snapshot)["architectures"] == [model_class.__name__]
    assert not info["missing_keys"]
    assert model.config.num_labels == 3


def test_a_config_that_tells_of_other_classes_than_the_head_has_is_an_issue(published: Path) -> None:
    with pytest.raises(IntegrityError, match="it tells of 5 classes; the checkpoint's head has 3"):
        with_head(published, None, num_labels=5)


def test_a_three_way_sentence_head_gets_its_size(archived: Callable[[str], Snapshot]) -> None:
    snapshot = archived("variants/chinese_sbert-large-std-512.legacy")
    model = loaded(snapshot, sbert.SbertForPreTraining)
    assert model.cls.seq_relationship.out_features == 3


# KE-T5's checkpoints.


def ket5(folder: Path, name: str, *, file: str = "best_model.pth") -> Snapshot:
    """Convert a KE-T5 head as train_ddp.py saves it: DDP's names, optimizer, epoch and score beside them."""
    source = golden(f"ket5/models/{name}")
    published = folder / "published"
    (published / file).parent.mkdir(parents=True)
    (published / "config.json").write_bytes((source / "config.json").read_bytes())
    state = load_file(source / "model.safetensors")
    state |= {"encoder.embed_tokens.weight": state["shared.weight"], "decoder.final_layer_norm.weight": torch.ones(32)}
    saved = {"epoch": 4, "state_dict": {f"module.{key}": value for key, value in state.items()}, "best_score": 0.5}
    torch.save({**saved, "optimizer": {"state": {}, "param_groups": [{"lr": 1e-3}]}}, published / file)
    return convert_files(files_of(published), folder / "converted", name="me/finetuned")


KET5 = {
    "T5EncoderForSequenceClassificationSimple-gated-gelu-single_label_classification": "logits",
    "T5EncoderForSequenceClassificationMean-relu-regression": "logits",
    "T5EncoderForSequenceClassificationRE": "logits",
    "T5EncoderForTokenClassification": "logits",
}


@pytest.mark.parametrize("name", KET5)
def test_a_converted_t5_head_computes_what_the_original_did(name: str, tmp_path: Path) -> None:
    snapshot = ket5(tmp_path, name)
    model = loaded(snapshot, getattr(t5_encoder, config_of(snapshot)["architectures"][0]))
    arrays = np.load(golden(f"ket5/models/{name}/io.npz"))
    names = {"input_ids", "attention_mask", "entity_token_idx"} & set(arrays)
    with torch.no_grad():
        output = model(**{key: torch.from_numpy(arrays[key]) for key in names})
    # The tolerance that goldens/ket5/README.md states.
    torch.testing.assert_close(output.logits, torch.from_numpy(arrays["logits"]), rtol=0, atol=1e-4)


def test_a_t5_tagger_keeps_its_crf(tmp_path: Path) -> None:
    loaded(
        ket5(tmp_path, "T5EncoderForEntityRecognitionWithCRF-5tags", file="weights/checkpoint.pth"),
        t5_encoder.T5EncoderForEntityRecognitionWithCRF,
    )


def test_the_decoder_under_an_encoders_head_is_told_of(tmp_path: Path) -> None:
    report = ket5(tmp_path, "T5EncoderForTokenClassification").report
    assert any("decoder.final_layer_norm.weight" in line for line in report.lines)


# Portable repos.


@pytest.mark.parametrize("family", FAMILIES)
def test_the_code_in_a_portable_repo_defines_the_classes_that_it_names(family: str) -> None:
    told = FAMILIES[family]
    defined = set()
    for name in told.modules:
        tree = ast.parse((ROOT / "hubcache/models" / name).read_text())
        defined |= {node.name for node in tree.body if isinstance(node, ast.ClassDef)}
        imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
        assert {f"{module}.py" for module in imported} <= set(told.modules)
    architecture = "T5EncoderForTokenClassification" if family == "t5_encoder" else ""
    assert {name.partition(".")[2] for name in told.auto_map(architecture).values()} <= defined


WITHOUT_HUBCACHE = """
import json, sys
from transformers import AutoTokenizer, {auto}
model, info = {auto}.from_pretrained({folder!r}, trust_remote_code=True, output_loading_info=True)
assert not any(info.values()), info
tokenizer = AutoTokenizer.from_pretrained({folder!r}, trust_remote_code=True)
assert not any(name.partition(".")[0] == "hubcache" for name in sys.modules)
print(json.dumps([type(model).__name__, type(tokenizer).__name__]))
"""
PORTABLE = {
    "english_sbert-large-std-512": ("AutoModelForPreTraining", "SbertForPreTraining", "BertTokenizer"),
    "chinese-palm-base": ("AutoModelForSeq2SeqLM", "PalmForConditionalGeneration", "BertTokenizer"),
    "xtreme-released-veco": ("AutoModelForMaskedLM", "VecoForMaskedLM", "VecoTokenizer"),
    "veco-large": ("AutoModelForSeq2SeqLM", "VecoForConditionalGeneration", "VecoNlgTokenizer"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PORTABLE)
def test_a_portable_repo_loads_without_hubcache(name: str, tmp_path: Path) -> None:
    auto, model, tokenizer = PORTABLE[name]
    files = unpacked(golden(f"{TARBALLS}/{name}.tar.gz"), tmp_path / "unpacked")
    snapshot = convert_files(files, tmp_path / "converted", name=name, portable=True)
    environ = {"PATH": os.environ["PATH"], "HF_HOME": str(tmp_path), "HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    code = WITHOUT_HUBCACHE.format(auto=auto, folder=str(snapshot.folder))
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environ,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [model, tokenizer]
