"""KE-T5's model names and its tokenizer."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers

from hubcache.compat import ke_t5
from hubcache.errors import BadReference
from hubcache.models import t5_encoder
from tests.support.goldens import ROOT, golden

pytestmark = pytest.mark.train

VOCABULARY = ROOT.parent / "shared/data/vocabs/ke-t5_sentencepiece.model"
CLASSES = (*t5_encoder.SEQUENCE_CLASSIFIERS, *t5_encoder.TOKEN_CLASSIFIERS)
TAGGER, CRF = t5_encoder.T5EncoderForTokenClassification, t5_encoder.T5EncoderForEntityRecognitionWithCRF
MEAN = t5_encoder.T5EncoderForSequenceClassificationMean
RE_ATTENTION = t5_encoder.T5EncoderForSequenceClassificationREAttention

# Names


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, type]]:
    """A registry that this test may fill."""
    monkeypatch.setattr(ke_t5, "_registry", dict(ke_t5._registry))
    return ke_t5._registry


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's package with one module that defines a class, imports another and needs nothing else."""
    package = tmp_path / "own_ke_t5_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "heads.py").write_text("class OwnHeadForTags:\n    pass\n\n\ndef own_function():\n    pass\n")
    (package / "broken.py").write_text("import a_module_that_is_nowhere\n")
    (package / "empty.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    yield "own_ke_t5_package"
    for name in [name for name in sys.modules if name.startswith("own_ke_t5_package")]:
        del sys.modules[name]


@pytest.mark.parametrize("model", CLASSES)
def test_every_class_of_the_reference_has_its_name(model: type) -> None:
    assert ke_t5.load_model(model.__name__) is model


@pytest.mark.parametrize("model", CLASSES)
@pytest.mark.parametrize("module", ["ke_t5.models.models", "ke_t5.models", "ke_t5/models/models"])
def test_the_references_modules_stand_for_ours(module: str, model: type) -> None:
    assert ke_t5.load_model(f"{module}:{model.__name__}") is model


@pytest.mark.parametrize("prefix", ["", "ke_t5.models.models:", "ke_t5/models/models:"])
@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("t5_encoder_for_token_classification", TAGGER),
        ("t5_encoder_for_sequence_classification_mean", MEAN),
        ("t5_encoder_for_entity_recognition_with_crf", CRF),
        ("t5_encoder_for_entity_recognition_with_CRF", CRF),
        (
            "t5_encoder_for_sequence_classification_re_attention",
            t5_encoder.T5EncoderForSequenceClassificationREAttention,
        ),
    ],
)
def test_a_class_may_be_written_in_snake_case(prefix: str, name: str, model: type) -> None:
    assert ke_t5.load_model(prefix + name) is model


@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("name", ["OwnHeadForTags", "own_head_for_tags"])
def test_a_users_own_module_is_imported_by_name(own_module: str, separator: str, name: str) -> None:
    assert ke_t5.load_model(f"{own_module}{separator}heads:{name}").__name__ == "OwnHeadForTags"


def test_transformers_own_class_is_found_as_the_references_readme_names_it() -> None:
    found = ke_t5.load_model("transformers:T5ForConditionalGeneration")
    assert found is transformers.T5ForConditionalGeneration


def test_a_registered_class_is_found_by_its_name(registry: dict[str, type]) -> None:
    @ke_t5.register_model("my_model")
    class Mine:
        pass

    assert ke_t5.load_model("my_model") is Mine


def test_a_registered_name_may_look_like_a_path(registry: dict[str, type]) -> None:
    @ke_t5.register_model("a/b:c")
    class Mine:
        pass

    assert ke_t5.load_model("a/b:c") is Mine


def test_a_later_registration_wins_and_warns(registry: dict[str, type]) -> None:
    with pytest.warns(UserWarning, match="T5EncoderForTokenClassification now means .*Mine"):

        @ke_t5.register_model("T5EncoderForTokenClassification")
        class Mine:
            pass

    assert ke_t5.load_model("T5EncoderForTokenClassification") is Mine


@pytest.mark.filterwarnings("error")
def test_registering_the_same_class_again_warns_of_nothing(registry: dict[str, type]) -> None:
    assert ke_t5.register_model(TAGGER.__name__)(TAGGER) is TAGGER


@pytest.mark.parametrize(
    "name", ["T5EncoderForTokenClasification", "ke_t5.models.models:t5_encoder_for_tokens_classification"]
)
def test_an_unknown_name_hints_at_the_nearest(name: str) -> None:
    with pytest.raises(BadReference, match="names no model class") as caught:
        ke_t5.load_model(name)
    assert caught.value.hint.startswith("the nearest: T5EncoderForTokenClassification")


def test_an_unknown_class_hints_at_the_nearest_of_its_module(own_module: str) -> None:
    with pytest.raises(BadReference, match="OwnHead names no model class") as caught:
        ke_t5.load_model(f"{own_module}.heads:OwnHead")
    assert caught.value.hint == "the nearest: OwnHeadForTags"


def test_an_unknown_class_of_an_empty_module_says_so(own_module: str) -> None:
    with pytest.raises(BadReference) as caught:
        ke_t5.load_model(f"{own_module}.empty:Model")
    assert caught.value.hint == "it defines no class"


def test_a_function_is_no_model_class(own_module: str) -> None:
    with pytest.raises(BadReference, match="names no model class"):
        ke_t5.load_model(f"{own_module}.heads:own_function")


@pytest.mark.parametrize("module", ["nowhere_at_all", "own_ke_t5_package.nowhere", "own_ke_t5_package/nowhere"])
def test_a_module_that_is_nowhere_is_named(own_module: str, module: str) -> None:
    with pytest.raises(BadReference, match=r"there is no module .*nowhere"):
        ke_t5.load_model(f"{module}:Model")


def test_what_a_module_itself_cannot_import_is_its_own_error(own_module: str) -> None:
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_nowhere"):
        ke_t5.load_model(f"{own_module}.broken:Model")


@pytest.mark.parametrize(
    "path", ["", ":", "..:Model", "a b:Model", "KETI-AIR/ke-t5-base:Model", "https://x.org/a:Model"]
)
def test_what_is_no_name_at_all_is_a_bad_reference(path: str) -> None:
    with pytest.raises(BadReference):
        ke_t5.load_model(path)


# Tokenizer


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not VOCABULARY.exists():
        pytest.skip(f"no {VOCABULARY}")
    folder = tmp_path_factory.mktemp("ke-t5")
    shutil.copy(VOCABULARY, folder / "spiece.model")
    return folder


@pytest.fixture(scope="module")
def tokenizer(tokenizer_folder: Path) -> Any:
    return transformers.T5Tokenizer.from_pretrained(tokenizer_folder)


def test_the_tokenizer_has_the_vocabulary_and_a_hundred_extra_ids(tokenizer: Any) -> None:
    assert len(tokenizer) == 64_100
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.convert_tokens_to_ids(["<extra_id_0>", "<extra_id_99>"]) == [64_099, 64_000]


def test_the_automatic_tokenizer_is_the_same_beside_a_configuration(tokenizer_folder: Path, tokenizer: Any) -> None:
    transformers.T5Config(vocab_size=64_128).save_pretrained(tokenizer_folder)
    text = "title: 세종 경로당·어린이집 2주간 휴원"
    assert transformers.AutoTokenizer.from_pretrained(tokenizer_folder)(text).input_ids == tokenizer(text).input_ids


def rows_of(task: str) -> list[tuple[str, list[int]]]:
    """Each row's text, and its ids without padding."""
    rows = json.loads((golden("ket5/preprocess") / f"{task}.json").read_text())["rows"]
    return [(row["inputs_pretokenized"], row["input_ids"][: sum(row["attention_mask"])]) for row in rows]


@pytest.mark.parametrize(
    "task", ["klue_tc", "klue_tc_gen", "klue_nli", "klue_sts", "klue_re", "kor_3i4k", "nikl_cola", "klue_mrc_gen"]
)
def test_ids_without_an_end_are_the_references(tokenizer: Any, task: str) -> None:
    for text, wanted in rows_of(task):
        assert tokenizer(text, add_special_tokens=False).input_ids[:48] == wanted


@pytest.mark.parametrize("task", ["klue_ner", "klue_re_tk_idx", "nikl_ner2020"])
def test_ids_with_an_end_are_the_references(tokenizer: Any, task: str) -> None:
    for text, wanted in rows_of(task):
        assert tokenizer(text, truncation=True, max_length=48).input_ids == wanted


@pytest.mark.parametrize("task", ["klue_mrc_gen_context_free", "korquad_gen", "korquad_gen_context_free"])
def test_only_the_lone_piece_of_a_trailing_space_is_gone(tokenizer: Any, task: str) -> None:
    # goldens/ket5/README.md: the old tokenizer made id 7 of a space at the end, sentencepiece and this one make none.
    for text, wanted in rows_of(task):
        found = tokenizer(text, add_special_tokens=False).input_ids
        assert (found + [7] * text.endswith(" "))[:48] == wanted
