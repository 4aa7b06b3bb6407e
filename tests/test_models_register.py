"""Importing hubcache.models tells transformers of every model: Auto classes, tokenizers and pipelines find them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.goldens import golden

transformers = pytest.importorskip("transformers")
models = pytest.importorskip("hubcache.models")
torch = pytest.importorskip("torch")

pytestmark = pytest.mark.train

SMALL = {
    "vocab_size": 338, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 66,
}  # fmt: skip
T5 = {"vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
PREFIXES = {"sbert": "Sbert", "veco": "Veco", "palm": "Palm"}
AUTO = [
    ("AutoModel", ["sbert", "veco", "palm"], "Model"),
    ("AutoModelForPreTraining", ["sbert"], "ForPreTraining"),
    ("AutoModelForMaskedLM", ["sbert", "veco"], "ForMaskedLM"),
    ("AutoModelForNextSentencePrediction", ["sbert"], "ForNextSentencePrediction"),
    ("AutoModelForSequenceClassification", ["sbert", "veco"], "ForSequenceClassification"),
    ("AutoModelForTokenClassification", ["sbert", "veco"], "ForTokenClassification"),
    ("AutoModelForQuestionAnswering", ["sbert", "veco"], "ForQuestionAnswering"),
    ("AutoModelForMultipleChoice", ["sbert", "veco"], "ForMultipleChoice"),
    ("AutoModelForSeq2SeqLM", ["palm"], "ForConditionalGeneration"),
]
CASES = [(auto, kind, f"{PREFIXES[kind]}{suffix}") for auto, kinds, suffix in AUTO for kind in kinds]
T5_HEADS = [name for name in models.__all__ if name.startswith("T5EncoderFor")]


def config_of(kind: str) -> Any:
    return getattr(models, f"{PREFIXES[kind]}Config")(**SMALL)


@pytest.mark.parametrize(("auto", "kind", "name"), CASES)
def test_an_auto_class_makes_the_model_of_a_config(auto: str, kind: str, name: str) -> None:
    assert type(getattr(transformers, auto).from_config(config_of(kind))) is getattr(models, name)


@pytest.mark.parametrize(("auto", "kind", "name"), CASES)
def test_an_auto_class_loads_what_was_saved(auto: str, kind: str, name: str, tmp_path: Path) -> None:
    made = getattr(models, name)(config_of(kind))
    made.save_pretrained(tmp_path)
    loaded, told = getattr(transformers, auto).from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(made)
    assert not any(told[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    stored = loaded.state_dict()
    assert all(torch.equal(tensor, stored[key]) for key, tensor in made.state_dict().items())


def test_the_encoder_decoder_of_veco_is_found_too() -> None:
    sizes = {f"{side}_{what}": 1 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = models.VecoNlgConfig(vocab_size=60, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16, **sizes)
    assert type(transformers.AutoModelForSeq2SeqLM.from_config(config)) is models.VecoForConditionalGeneration


@pytest.mark.parametrize("name", T5_HEADS)
def test_a_t5_config_s_architecture_chooses_the_ke_t5_head(name: str) -> None:
    config = models.T5EncoderConfig(**T5, num_labels=3)
    config.architectures = [name]
    kind = "SequenceClassification" if "ForSequenceClassification" in name else "TokenClassification"
    auto = getattr(transformers, f"AutoModelFor{kind}")
    assert type(auto.from_config(config)) is getattr(models, name)


@pytest.mark.parametrize("name", T5_HEADS)
def test_a_saved_ke_t5_head_is_loaded_by_its_auto_class(name: str, tmp_path: Path) -> None:
    config = models.T5EncoderConfig(**T5, num_labels=3)
    getattr(models, name)(config).save_pretrained(tmp_path)
    kind = "SequenceClassification" if "ForSequenceClassification" in name else "TokenClassification"
    loaded = getattr(transformers, f"AutoModelFor{kind}").from_pretrained(tmp_path)
    assert type(loaded) is getattr(models, name)


@pytest.mark.parametrize("kind", ["SequenceClassification", "TokenClassification"])
def test_a_t5_config_of_transformers_own_stays_transformers_own(kind: str) -> None:
    config = transformers.T5Config(**T5)
    made = getattr(transformers, f"AutoModelFor{kind}").from_config(config)
    assert type(made) is getattr(transformers, f"T5For{kind}")


@pytest.mark.parametrize(
    ("model_type", "vocabulary", "name"),
    [
        ("sbert", "en_vocab.txt", "SbertTokenizer"),
        ("palm", "zh_vocab.txt", "PalmTokenizer"),
        ("veco", "sentencepiece.bpe.model", "VecoTokenizer"),
    ],
)
def test_a_folder_with_a_vocabulary_and_a_config_has_its_tokenizer(
    model_type: str, vocabulary: str, name: str, tmp_path: Path
) -> None:
    source = golden("sofa/tarballs").parent / "tokenizers" / vocabulary
    shutil.copy(source, tmp_path / ("vocab.txt" if vocabulary.endswith(".txt") else vocabulary))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert type(tokenizer) is getattr(models, name)
    assert len(tokenizer) > 300


def saved(name: str, folder: Path, **options: Any) -> Path:
    """Save a small StructBERT with its tokenizer."""
    made = getattr(models, name)(models.SbertConfig(**SMALL, **options))
    made.save_pretrained(folder)
    vocabulary = golden("sofa/tarballs").parent / "tokenizers" / "en_vocab.txt"
    models.SbertTokenizer(str(vocabulary)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("task", "name", "keys"),
    [
        ("text-classification", "SbertForSequenceClassification", {"label", "score"}),
        ("token-classification", "SbertForTokenClassification", {"entity", "score", "index", "word", "start", "end"}),
        ("fill-mask", "SbertForMaskedLM", {"score", "token", "token_str", "sequence"}),
    ],
)
def test_a_pipeline_runs(task: str, name: str, keys: set[str], tmp_path: Path) -> None:
    text = "the movie was [MASK]." if task == "fill-mask" else "the movie was great."
    found = transformers.pipeline(task, str(saved(name, tmp_path)))(text)
    assert set(found[0]) == keys


def test_a_pipeline_gives_features(tmp_path: Path) -> None:
    found = transformers.pipeline("feature-extraction", str(saved("SbertModel", tmp_path)))("the movie was great.")
    assert len(found[0][0]) == SMALL["hidden_size"]


def test_registering_twice_changes_nothing() -> None:
    from hubcache.models.register import register

    register()
    assert type(transformers.AutoModel.from_config(config_of("sbert"))) is models.SbertModel


def test_every_public_name_is_there() -> None:
    assert [name for name in models.__all__ if not hasattr(models, name)] == []


FRESH = """
import sys, hubcache.models, transformers
print(type(transformers.AutoModel.from_pretrained(sys.argv[1])).__name__)
"""


def test_the_models_are_found_in_a_process_that_imports_nothing_else(tmp_path: Path) -> None:
    models.SbertModel(config_of("sbert")).save_pretrained(tmp_path)
    command = [sys.executable, "-c", FRESH, str(tmp_path)]
    told = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (told.returncode, told.stdout.strip()) == (0, "SbertModel"), told.stderr
