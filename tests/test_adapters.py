"""Adapters on models built here: what they change, what trains, what is saved, and over which base."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from transformers import (  # noqa: E402
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertForTokenClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    T5Config,
    T5ForConditionalGeneration,
)

from hubcache.errors import BadConfig, UsageError  # noqa: E402
from hubcache.models import (  # noqa: E402
    PalmConfig,
    PalmForConditionalGeneration,
    SbertConfig,
    SbertForSequenceClassification,
    T5EncoderConfig,
    T5EncoderForSequenceClassificationMean,
    VecoConfig,
    VecoForConditionalGeneration,
    VecoForSequenceClassification,
    VecoNlgConfig,
)
from hubcache.train import adapters  # noqa: E402
from hubcache.train.adapters import PfeifferConfig, choice_of, init, merge  # noqa: E402
from hubcache.train.adapters.adapted import adapter_parameters  # noqa: E402
from hubcache.train.adapters.bottleneck import Bottleneck, BottleneckConfig  # noqa: E402

pytestmark = pytest.mark.train

WIDE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
T5 = {"vocab_size": 60, "d_model": 32, "d_kv": 16, "d_ff": 64, "num_layers": 2, "num_heads": 2}
BART = {f"{part}_{size}": 2 for part in ("encoder", "decoder") for size in ("layers", "attention_heads")}
KINDS = ("pfeiffer", "houlsby", "lora", "ia3")
IDS = torch.tensor([[5, 6, 7, 8, 9, 10], [11, 12, 13, 14, 15, 16], [17, 5, 19, 20, 21, 22]])
LABELS = torch.tensor([0, 1, 0])
FAMILIES: dict[str, Any] = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**WIDE)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**WIDE)),
    "sbert": lambda: SbertForSequenceClassification(SbertConfig(**WIDE)),
    "veco": lambda: VecoForSequenceClassification(VecoConfig(**WIDE)),
    "t5_encoder": lambda: T5EncoderForSequenceClassificationMean(T5EncoderConfig(**T5, num_labels=2)),
    "t5": lambda: T5ForConditionalGeneration(T5Config(**T5, decoder_start_token_id=0)),
    "palm": lambda: PalmForConditionalGeneration(PalmConfig(**{**WIDE, "vocab_size": 120}, dec_layers=2)),
    "veco_nlg": lambda: VecoForConditionalGeneration(
        VecoNlgConfig(vocab_size=60, d_model=32, encoder_ffn_dim=64, decoder_ffn_dim=64, **BART)
    ),
}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    yield
    torch.set_num_threads(threads)


def needs(kind: str) -> str:
    if kind in {"lora", "ia3", "prompt", "prefix"}:
        pytest.importorskip("peft")
    return kind


def inputs(model: Any) -> dict[str, Any]:
    mask = torch.ones_like(IDS)
    if model.config.is_encoder_decoder:
        return {"input_ids": IDS, "attention_mask": mask, "labels": IDS.flip(1)}
    return {"input_ids": IDS, "attention_mask": mask, "labels": LABELS}


@torch.no_grad()
def logits(model: Any) -> Any:
    return model.eval()(**inputs(model)).logits


def trained(model: Any, name: str, steps: int = 4) -> list[float]:
    """Train what is free; return the losses."""
    model.train_adapter(name)
    model.eval()
    optimizer = torch.optim.AdamW([each for each in model.parameters() if each.requires_grad], lr=1e-2)
    losses = []
    for _ in range(steps):
        loss = model(**inputs(model)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    return losses


@pytest.fixture
def base(tmp_path: Path) -> Path:
    FAMILIES["bert"]().save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def loaded(folder: Path) -> Any:
    return init(AutoModelForSequenceClassification.from_pretrained(folder))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_adapter_changes_nothing(family: str, kind: str) -> None:
    model = init(FAMILIES[family]())
    before = logits(model)
    model.add_adapter("new", config=needs(kind), set_active=True)
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", FAMILIES)
def test_training_changes_the_adapter_and_the_head_alone_and_lowers_the_loss(family: str, kind: str) -> None:
    model = init(FAMILIES[family]())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_adapter("new", config=needs(kind))
    losses = trained(model, "new")
    marks = (".adapters.", "lora_", "ia3_", "classifier", "pooler.dense", "pooler_seq")
    changed = [
        name
        for name, value in model.state_dict().items()
        if not torch.equal(value, before.get(name.replace(".base_layer", ""), torch.empty(0)))
    ]
    assert losses[-1] < losses[0]
    assert [name for name in changed if not any(mark in name for mark in marks)] == []


def test_a_houlsby_adapter_stands_behind_every_attention_too() -> None:
    model = init(FAMILIES["t5"]())
    model.add_adapter("new", config="houlsby")
    # An encoder's block has one attention, a decoder's two, each has a feed-forward: 2 * 2 + 2 * 3.
    assert sum(isinstance(module, Bottleneck) for module in model.modules()) == 10


def test_a_pfeiffer_adapter_stands_behind_the_feed_forward_alone() -> None:
    model = init(FAMILIES["t5"]())
    model.add_adapter("new", config="pfeiffer")
    assert sum(isinstance(module, Bottleneck) for module in model.modules()) == 4


def test_a_bottleneck_s_gradient_is_the_difference_quotient_s() -> None:
    adapter = Bottleneck(8, BottleneckConfig("houlsby", reduction=2)).double()
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    assert torch.autograd.gradcheck(adapter, (torch.randn(3, 8, dtype=torch.float64, requires_grad=True),))


@pytest.mark.parametrize("kind", ["pfeiffer", "houlsby", "lora"])
def test_switching_by_name_restores_each_one_s_outputs_and_the_model_s_own(base: Path, kind: str) -> None:
    model = loaded(base)
    own, said = logits(model), {}
    for name in ("one", "two"):
        model.add_adapter(name, config=needs(kind))
        trained(model, name)
        said[name] = logits(model)
    assert not torch.equal(said["one"], said["two"])
    for name in ("two", "one", "two"):
        model.set_active_adapters(name)
        assert torch.equal(logits(model), said[name])
    model.set_active_adapters(None)
    assert torch.equal(logits(model), own)


def test_several_active_adapters_run_one_on_the_other(base: Path) -> None:
    model = loaded(base)
    said = []
    for name in ("one", "two"):
        model.add_adapter(name)
        trained(model, name)
        said.append(logits(model))
    model.set_active_adapters(["one", "two"])
    both = logits(model)
    assert all(not torch.equal(both, each) for each in said)


@pytest.mark.parametrize("kind", [*KINDS, "prompt", "prefix"])
def test_a_saved_and_loaded_adapter_gives_equal_logits(base: Path, tmp_path: Path, kind: str) -> None:
    model = loaded(base)
    model.add_adapter("mood", config=needs(kind))
    trained(model, "mood")
    model.save_adapter(tmp_path / "mood", "mood")
    other = loaded(base)
    name = other.load_adapter(tmp_path / "mood", load_as="again", set_active=True)
    assert name == "again"
    assert torch.equal(logits(other), logits(model))


def test_what_is_saved_is_small_and_names_the_base_by_digest(base: Path, tmp_path: Path) -> None:
    model = loaded(base)
    model.add_adapter("mood")
    model.save_adapter(tmp_path / "mood", "mood")
    assert sorted(path.name for path in (tmp_path / "mood").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    import hashlib

    digest = hashlib.sha256((base / "model.safetensors").read_bytes()).hexdigest()
    assert digest in (tmp_path / "mood" / "adapter_config.json").read_text()


@pytest.mark.parametrize("kind", ["houlsby", "lora"])
def test_another_base_is_refused_and_any_base_takes_it(base: Path, tmp_path: Path, kind: str) -> None:
    model = loaded(base)
    model.add_adapter("mood", config=needs(kind))
    model.save_adapter(tmp_path / "mood", "mood")
    FAMILIES["bert"]().save_pretrained(tmp_path / "other")
    other = loaded(tmp_path / "other")
    with pytest.raises(UsageError, match="was trained over"):
        other.load_adapter(tmp_path / "mood")
    assert other.load_adapter(tmp_path / "mood", any_base=True) == "mood"


@pytest.mark.parametrize("content", [None, b"", b"junk"])
def test_an_adapters_broken_weights_are_told(base: Path, tmp_path: Path, content: bytes | None) -> None:
    model = loaded(base)
    model.add_adapter("mood")
    model.save_adapter(tmp_path / "mood", "mood")
    weights = tmp_path / "mood" / "adapter_model.safetensors"
    weights.unlink() if content is None else weights.write_bytes(content)
    with pytest.raises(BadConfig, match="cannot be read"):
        loaded(base).load_adapter(tmp_path / "mood")


def test_peft_loads_what_is_saved_of_a_lora(base: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    model = loaded(base)
    model.add_adapter("mood", config="lora")
    trained(model, "mood")
    model.save_adapter(tmp_path / "mood", "mood")
    theirs = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base), tmp_path / "mood")
    theirs.config = model.config
    torch.testing.assert_close(theirs.eval()(**inputs(model)).logits, logits(model), rtol=0, atol=1e-6)


def test_a_merged_lora_equals_the_unmerged_one(base: Path) -> None:
    model = loaded(base)
    model.add_adapter("mood", config=needs("lora"))
    trained(model, "mood")
    before = logits(model)
    assert merge(model) == 4
    torch.testing.assert_close(logits(model), before, rtol=0, atol=1e-5)


def test_a_checkpoint_of_the_base_still_loads_under_a_bottleneck(base: Path) -> None:
    model = loaded(base)
    own = set(model.state_dict())
    model.add_adapter("mood")
    assert own < set(model.state_dict())


def test_a_copy_has_adapters_of_its_own(base: Path) -> None:
    model = loaded(base)
    model.add_adapter("mood", set_active=True)
    twin = copy.deepcopy(model)
    before = logits(model)
    trained(twin, "mood")
    assert torch.equal(logits(model), before)


def test_an_adapter_follows_the_model_to_bfloat16(base: Path) -> None:
    model = loaded(base)
    model.add_adapter("mood", set_active=True)
    assert logits(model.to(torch.bfloat16)).dtype is torch.bfloat16


@pytest.mark.parametrize("kind", ["houlsby", "lora"])
@pytest.mark.parametrize("family", ["bert", "t5"])
def test_gradient_checkpointing_gives_the_same_gradients(family: str, kind: str) -> None:
    model = init(FAMILIES[family]())
    model.add_adapter("new", config=needs(kind))
    trained(model, "new", steps=1)
    found = []
    for enable in (False, True):
        if enable:
            model.gradient_checkpointing_enable()
        model.train()
        torch.manual_seed(0)
        model.zero_grad()
        model(**inputs(model)).loss.backward()
        found.append([each.grad.clone() for each in model.parameters() if each.grad is not None])
    assert len(found[0]) == len(found[1]) > 2
    for plain, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, plain, rtol=0, atol=1e-6)


def test_a_name_that_is_taken_or_unknown_is_refused(base: Path) -> None:
    model = loaded(base)
    model.add_adapter("mood", config=PfeifferConfig(reduction_factor=4))
    for attempt in (lambda: model.add_adapter("mood"), lambda: model.set_active_adapters("other")):
        with pytest.raises(UsageError, match="there is"):
            attempt()


PROMPTED = ("bert", "roberta", "sbert", "veco", "t5_encoder", "t5", "veco_nlg")
PREFIXED = ("bert", "roberta", "sbert", "veco")


@pytest.mark.parametrize(
    ("kind", "family"), [*(("prompt", each) for each in PROMPTED), *(("prefix", each) for each in PREFIXED)]
)
def test_a_prompt_or_prefix_trains_alone_with_the_head_and_is_not_there_when_turned_off(kind: str, family: str) -> None:
    model = init(FAMILIES[family]())
    own = logits(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.add_adapter("new", config=choice_of(needs(kind), tokens=3))
    (vectors,) = adapter_parameters(model, "new")
    start = vectors.detach().clone()
    losses = trained(model, "new", steps=6)
    assert not torch.equal(vectors, start)
    changed = [name for name, value in before.items() if not torch.equal(model.state_dict()[name], value)]
    heads = ("classifier", "pooler.dense", "pooler_seq")
    assert losses[-1] < losses[0]
    assert [name for name in changed if not name.startswith(heads)] == []
    model.set_active_adapters(None)
    assert torch.equal(logits(model), own)


@pytest.mark.parametrize(("kind", "family"), [("prompt", "palm"), ("prefix", "t5"), ("prefix", "palm")])
def test_a_family_that_takes_no_prompt_is_told(kind: str, family: str) -> None:
    model = init(FAMILIES[family]())
    with pytest.raises(UsageError, match=f"takes no {needs(kind)}"):
        model.add_adapter("new", config=kind)


def peft_of(base: Path, folder: Path, config: Any) -> Any:
    """Load a saved adapter by peft itself, over the base."""
    peft = pytest.importorskip("peft")
    theirs = peft.PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(base), folder)
    theirs.config = config
    return theirs.eval()


@pytest.mark.parametrize("family", ["bert", "roberta"])
@pytest.mark.parametrize("kind", ["prompt", "prefix"])
def test_peft_answers_alike_with_a_saved_prompt(tmp_path: Path, family: str, kind: str) -> None:
    FAMILIES[family]().save_pretrained(tmp_path / "base")
    model = loaded(tmp_path / "base")
    model.add_adapter("mood", config=choice_of(needs(kind), tokens=3))
    trained(model, "mood")
    model.save_adapter(tmp_path / "mood", "mood")
    theirs = peft_of(tmp_path / "base", tmp_path / "mood", model.config)
    shown = {
        **inputs(model),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0]]),
    }
    with torch.no_grad():
        torch.testing.assert_close(theirs(**shown).logits, model.eval()(**shown).logits, rtol=0, atol=1e-6)


def test_a_prompted_t5_answers_as_pefts_and_generates(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    FAMILIES["t5"]().save_pretrained(tmp_path / "base")
    model = init(T5ForConditionalGeneration.from_pretrained(tmp_path / "base"))
    model.add_adapter("mood", config=choice_of("prompt", tokens=3))
    trained(model, "mood")
    model.save_adapter(tmp_path / "mood", "mood")
    base = T5ForConditionalGeneration.from_pretrained(tmp_path / "base")
    theirs = peft.PeftModel.from_pretrained(base, tmp_path / "mood").eval()
    with torch.no_grad():
        torch.testing.assert_close(theirs(**inputs(model)).logits, logits(model), rtol=0, atol=1e-6)
    asked = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS), "max_new_tokens": 5, "do_sample": False}
    assert torch.equal(model.generate(**asked, num_beams=2), theirs.generate(**asked, num_beams=2))


def test_a_tagger_has_a_label_for_each_token_under_a_prompt() -> None:
    model = init(BertForTokenClassification(BertConfig(**WIDE)))
    model.add_adapter("new", config=choice_of(needs("prompt"), tokens=3), set_active=True)
    said = model(input_ids=IDS, attention_mask=torch.ones_like(IDS), labels=torch.zeros_like(IDS))
    assert said.logits.shape == (3, 6, 2)
    assert torch.isfinite(said.loss)


def test_a_prompt_beyond_the_models_positions_is_told(tmp_path: Path) -> None:
    model = init(BertForSequenceClassification(BertConfig(**WIDE, max_position_embeddings=8)))
    model.add_adapter("new", config=choice_of(needs("prompt"), tokens=3), set_active=True)
    with pytest.raises(UsageError, match="takes 8"):
        logits(model)


@pytest.mark.parametrize("pair", [("lora", "pfeiffer"), ("pfeiffer", "ia3"), ("prompt", "houlsby"), ("prefix", "lora")])
def test_adapters_of_two_kinds_stand_side_by_side_on_one_base(base: Path, pair: tuple[str, str]) -> None:
    model = loaded(base)
    own, said = logits(model), {}
    for kind in pair:
        model.add_adapter(kind, config=needs(kind))
        trained(model, kind)
        said[kind] = logits(model)
    for kind in pair:
        model.set_active_adapters(kind)
        assert torch.equal(logits(model), said[kind])
    model.set_active_adapters(list(pair))
    both = logits(model)
    assert all(not torch.equal(both, each) for each in said.values())
    model.set_active_adapters(None)
    assert torch.equal(logits(model), own)


@pytest.mark.parametrize("pair", [("lora", "pfeiffer"), ("prompt", "houlsby")])
def test_adapters_of_two_kinds_are_saved_and_loaded_by_name(base: Path, tmp_path: Path, pair: tuple[str, str]) -> None:
    model, said = loaded(base), {}
    for kind in pair:
        model.add_adapter(kind, config=needs(kind))
        trained(model, kind)
        said[kind] = logits(model)
        model.save_adapter(tmp_path / kind, kind)
    other = loaded(base)
    for kind in pair:
        assert other.load_adapter(tmp_path / kind) == kind
    for kind in pair:
        other.set_active_adapters(kind)
        assert torch.equal(logits(other), said[kind])


@pytest.mark.parametrize("pair", [("lora", "ia3"), ("ia3", "lora")])
def test_two_of_pefts_layer_kinds_in_one_model_are_refused(base: Path, pair: tuple[str, str]) -> None:
    model = loaded(base)
    model.add_adapter("one", config=needs(pair[0]))
    with pytest.raises(UsageError, match="cannot be in one model"):
        model.add_adapter("two", config=pair[1])


@pytest.mark.parametrize("pair", [("lora", "pfeiffer"), ("pfeiffer", "lora")])
def test_lora_and_a_bottleneck_on_one_projection_are_refused(base: Path, pair: tuple[str, str]) -> None:
    model = loaded(base)
    needs("lora")
    choices = {"lora": choice_of("lora", targets=("dense",)), "pfeiffer": "pfeiffer"}
    model.add_adapter("one", config=choices[pair[0]])
    with pytest.raises(UsageError, match="stands"):
        model.add_adapter("two", config=choices[pair[1]])


def flexible(base: Path) -> Any:
    """Load a model as a script with the package's AutoAdapterModel does, with two adapters of other labels."""
    model = adapters.AutoAdapterModel.from_pretrained(base)
    model.add_adapter("mood")
    model.add_classification_head("mood", num_labels=2)
    model.add_classification_head("topic", num_labels=3, id2label={0: "war", 1: "art", 2: "sea"})
    model.add_adapter("topic")
    for name in ("mood", "topic"):
        trained(model, name)
    return model


def test_adapters_of_one_base_have_heads_for_their_own_labels(base: Path) -> None:
    model, widths = flexible(base), []
    for name in ("mood", "topic", "mood", None):
        model.set_active_adapters(name)
        widths.append((logits(model).shape[-1], model.config.num_labels))
    assert widths == [(2, 2), (3, 3), (2, 2), (2, 2)]


def test_a_saved_head_brings_its_labels(base: Path, tmp_path: Path) -> None:
    model = flexible(base)
    model.set_active_adapters("topic")
    said = logits(model)
    model.save_adapter(tmp_path / "topic", "topic")
    other = loaded(base)
    other.load_adapter(tmp_path / "topic", set_active=True)
    assert (torch.equal(logits(other), said), other.config.id2label[1]) == (True, "art")


def test_a_model_without_a_classifier_gets_none(base: Path) -> None:
    model = init(FAMILIES["t5"]())
    model.add_adapter("new")
    with pytest.raises(UsageError, match="has no classifier"):
        model.add_classification_head("new", num_labels=3)


@pytest.mark.slow
def test_the_packages_example_runs_after_its_imports_are_changed() -> None:
    root = Path(__file__).resolve().parents[1]
    ran = subprocess.run(
        [sys.executable, "-m", "tests.scripts.adapters_example"],
        cwd=root, env={**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert "restored: True" in ran.stdout
