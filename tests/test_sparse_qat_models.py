"""Quantised models: SparseML's checkpoint loaded, ours saved, reloaded and resumed, and what training them keeps."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from hubcache.errors import BadConfig
from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from safetensors.torch import load_file  # noqa: E402
from torch import nn  # noqa: E402

from hubcache.train.sparse import quantization as qat  # noqa: E402
from hubcache.train.sparse.actions import Training  # noqa: E402
from hubcache.train.sparse.quantization import fake, layers  # noqa: E402
from hubcache.train.sparse.recipe import (  # noqa: E402
    EpochRangeModifier,
    LegacyQuantizationModifier,
    QuantizationModifier,
    Recipe,
    read_recipe,
)

ZOO_QAT = "sparse/fakezoo/files/ef11a466-4507-55f6-99c9-e7ef96b95b56/training"
IN_EVALUATION = 2.4e-7
SIZES = {
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 16,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}
SEED = LegacyQuantizationModifier(
    start_epoch=1.0,
    disable_quantization_observer_epoch=2.0,
    quantize_linear_activations=False,
    exclude_module_types=("LayerNorm", "Tanh"),
    submodules=("bert.embeddings", "bert.encoder", "bert.pooler", "classifier"),
)
SCHEME = QuantizationModifier(
    start_epoch=1.0,
    scheme={"weights": {"num_bits": 4, "symmetric": True, "strategy": "channel"}},
    scheme_overrides={"Embedding": {"input_activations": None, "weights": {"num_bits": 8}}},
    ignore=("LayerNorm", "Tanh", "Dropout"),
    strict=False,
)


def bert(**changes: Any) -> Any:
    torch.set_num_threads(1)
    torch.manual_seed(3)
    return transformers.BertForSequenceClassification(transformers.BertConfig(**SIZES, **changes))


def batch() -> dict[str, Any]:
    torch.manual_seed(5)
    ids = torch.randint(0, 32, (4, 6))
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": torch.tensor([0, 1, 1, 0])}


def training_of(model: Any) -> Training:
    return Training(model, torch.optim.AdamW(model.parameters(), lr=1e-2), 2)


def step(training: Training, action: qat.QuantizationAction, number: int) -> None:
    training.model.train()
    training.optimizer.zero_grad()
    training.model(**batch()).loss.backward()
    action.update(training, number / training.steps_per_epoch)
    training.optimizer.step()


def trained(definition: Any = SEED, steps: int = 5) -> Training:
    training, action = training_of(bert()), qat.QuantizationAction(definition)
    for number in range(steps):
        step(training, action, number)
    return training


def logits(model: Any) -> Any:
    with torch.no_grad():
        return model.eval()(**batch()).logits


def equal(one: Any, other: Any) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def zoo() -> tuple[Any, dict[str, Any], dict[str, Any], Path]:
    """Return SparseML's quantised model with random weights, its state, a batch and its folder."""
    folder = golden(ZOO_QAT)
    torch.set_num_threads(1)
    expected = json.loads(golden("sparse/fakezoo/expected_logits.json").read_text())
    state = torch.load(folder / "pytorch_model.bin", weights_only=True)
    config = transformers.AutoConfig.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    return model, state, expected, folder


def furthest_logit(model: Any, expected: dict[str, Any]) -> float:
    encoding = {name: torch.tensor(value) for name, value in expected["encoding"].items()}
    with torch.no_grad():
        return float((model(**encoding).logits - torch.tensor(expected["C_qat_logits"])).abs().max())


def test_sparsemls_checkpoint_loads_by_its_recipe_with_nothing_random_and_gives_its_logits() -> None:
    model, state, expected, folder = zoo()
    recipe = read_recipe(folder / "recipe.yaml")
    assert qat.load_state(model, state, qat.definitions(recipe)) == []
    assert furthest_logit(model, expected) <= IN_EVALUATION


def test_sparsemls_checkpoint_loads_by_its_keys_alone_with_nothing_random_and_gives_its_logits() -> None:
    model, state, expected, _ = zoo()
    assert qat.load_state(model, state) == []
    assert furthest_logit(model, expected) <= IN_EVALUATION


def test_every_tensor_of_sparsemls_checkpoint_finds_its_place() -> None:
    model, state, _, _ = zoo()
    qat.load_state(model, state)
    assert set(state) == set(model.state_dict())


def test_plain_transformers_would_draw_28_tensors_of_sparsemls_checkpoint_at_random() -> None:
    folder = golden(ZOO_QAT)
    _, found = transformers.AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert (len(found["missing_keys"]), len(found["unexpected_keys"])) == (28, 266)


def test_a_quantised_backbone_loads_under_another_head_which_alone_is_random() -> None:
    _, state, _, folder = zoo()
    config = transformers.AutoConfig.from_pretrained(folder, num_labels=5)
    model = transformers.AutoModelForTokenClassification.from_config(config)
    assert qat.load_state(model, state) == ["classifier.module.weight", "classifier.module.bias"]


@pytest.mark.parametrize("definition", [SEED, SCHEME])
def test_keys_alone_give_every_layer_the_recipes_grid(definition: Any) -> None:
    model = trained(definition).model
    twin = bert()
    qat.structure_from_keys(twin, model.state_dict())
    assert grids(twin) == grids(model)


def grids(model: Any) -> dict[str, Any]:
    return {name: each.grid for name, each in model.named_modules() if isinstance(each, fake.FakeQuantize)}


@pytest.mark.parametrize("definition", [SEED, SCHEME])
def test_what_is_saved_as_safetensors_reloads_bit_equal(definition: Any, tmp_path: Path) -> None:
    model = trained(definition).model
    model.save_pretrained(tmp_path)
    twin = bert()
    assert qat.load_state(twin, load_file(tmp_path / "model.safetensors"), [definition]) == []
    assert equal(twin.state_dict(), model.state_dict())
    assert torch.equal(logits(twin), logits(model))


def by_recipe(training: Training, action: qat.QuantizationAction, at: int, state: Any) -> None:
    action.restore(training, at / 2)
    training.model.load_state_dict(state)


def by_keys(training: Training, action: qat.QuantizationAction, at: int, state: Any) -> None:
    qat.load_state(training.model, state)
    action.restore(training, at / 2)


@pytest.mark.parametrize("definition", [SEED, SCHEME])
@pytest.mark.parametrize(
    ("at", "restored"), [(2, by_recipe), (3, by_recipe), (4, by_recipe), (5, by_recipe), (4, by_keys), (5, by_keys)]
)
def test_a_resumed_training_ends_bit_equal_to_one_that_was_not_interrupted(
    definition: Any, at: int, restored: Any
) -> None:
    whole = trained(definition, steps=7)
    first = trained(definition, steps=at)
    model, action = bert(), qat.QuantizationAction(definition)
    training = training_of(model)
    restored(training, action, at, first.model.state_dict())
    training.optimizer.load_state_dict(first.optimizer.state_dict())
    for number in range(at, 7):
        step(training, action, number)
    assert equal(model.state_dict(), whole.model.state_dict())


def test_tied_weights_stay_tied_through_quantising_saving_and_loading(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = transformers.BertConfig(**SIZES)
    model, twin = transformers.BertForMaskedLM(config), transformers.BertForMaskedLM(config)
    everywhere = LegacyQuantizationModifier(start_epoch=0.0, quantize_linear_activations=False)
    qat.restore_structure(model, [everywhere])
    model.train()(batch()["input_ids"])
    model.save_pretrained(tmp_path)
    assert qat.load_state(twin, load_file(tmp_path / "model.safetensors"), [everywhere]) == []
    assert twin.cls.predictions.decoder.weight is twin.bert.embeddings.word_embeddings.weight
    ids = batch()["input_ids"]
    with torch.no_grad():
        assert torch.equal(twin.eval()(ids).logits, model.eval()(ids).logits)


def test_an_encoder_decoder_quantises_saves_and_loads_bit_equal(tmp_path: Path) -> None:
    torch.manual_seed(3)
    config = transformers.T5Config(
        vocab_size=32, d_model=8, d_kv=4, d_ff=16, num_layers=1, num_heads=2, decoder_start_token_id=0
    )
    model, twin = transformers.T5ForConditionalGeneration(config), transformers.T5ForConditionalGeneration(config)
    everywhere = LegacyQuantizationModifier(start_epoch=0.0, quantize_linear_activations=False)
    qat.restore_structure(model, [everywhere])
    inputs = {"input_ids": batch()["input_ids"], "labels": batch()["input_ids"]}
    model.train()(**inputs).loss.backward()
    model.save_pretrained(tmp_path)
    assert qat.load_state(twin, load_file(tmp_path / "model.safetensors"), [everywhere]) == []
    with torch.no_grad():
        assert torch.equal(twin.eval()(**inputs).logits, model.eval()(**inputs).logits)


def test_an_evaluation_changes_no_scale() -> None:
    model = trained(SEED, steps=4).model
    before = copy.deepcopy(model.state_dict())
    for shift in range(3):
        with torch.no_grad():
            model.eval()(batch()["input_ids"] * shift % 32)
    assert equal(model.state_dict(), before)


def test_a_layer_that_has_seen_no_training_step_rounds_nothing() -> None:
    model = bert()
    before = logits(model)
    qat.restore_structure(model, [SEED])
    assert torch.equal(logits(model), before)


def test_every_observer_freezes_at_its_epoch_also_of_a_submodule_that_is_a_layer() -> None:
    model = trained(SEED, steps=5).model
    assert isinstance(model.classifier, layers.QuantWrapper)
    assert not [name for name, each in model.named_buffers() if name.endswith("observer_enabled") and int(each)]


def test_scales_stand_still_once_observers_are_frozen() -> None:
    training, action = training_of(bert()), qat.QuantizationAction(SEED)
    for number in range(5):
        step(training, action, number)
    before = {name: each.clone() for name, each in training.model.named_buffers() if name.endswith("scale")}
    for number in range(5, 8):
        step(training, action, number)
    assert equal(before, {name: each for name, each in training.model.named_buffers() if name in before})


def test_quantising_keeps_each_parameter_and_each_layer_the_same_object() -> None:
    model = bert()
    parameters, query = [id(each) for each in model.parameters()], model.bert.encoder.layer[0].attention.self.query
    qat.restore_structure(model, [SEED])
    assert [id(each) for each in model.parameters()] == parameters
    assert model.bert.encoder.layer[0].attention.self.query.module is query


def test_a_second_recipe_lets_observers_of_a_quantised_model_learn_again() -> None:
    training = trained(SEED, steps=5)
    again = LegacyQuantizationModifier(start_epoch=0.0, submodules=("classifier",))
    qat.QuantizationAction(again).update(training, 0.0)
    assert all(quantizer.observes for quantizer in fake.quantizers(training.model))


def test_batch_norms_keep_their_statistics_from_their_epoch_on_until_closed() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    definition = LegacyQuantizationModifier(start_epoch=0.0, freeze_bn_stats_epoch=1.0)
    training, action = Training(model, None, 1), qat.QuantizationAction(definition)
    action.update(training, 1.0)
    model.train()(torch.randn(4, 3))
    assert int(model[1].num_batches_tracked) == 0
    action.close(training)
    model.train()(torch.randn(4, 3))
    assert int(model[1].num_batches_tracked) == 1


def test_batch_norms_keep_their_statistics_in_a_resumed_training_too() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    definition = LegacyQuantizationModifier(start_epoch=0.0, freeze_bn_stats_epoch=1.0)
    qat.QuantizationAction(definition).restore(Training(model, None, 1), 2.0)
    model.train()(torch.randn(4, 3))
    assert int(model[1].num_batches_tracked) == 0


def test_batch_norms_move_in_the_step_that_a_resumed_training_is_to_freeze_them_in() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    definition = LegacyQuantizationModifier(start_epoch=0.0, freeze_bn_stats_epoch=1.0)
    qat.QuantizationAction(definition).restore(Training(model, None, 1), 1.0)
    model.train()(torch.randn(4, 3))
    assert int(model[1].num_batches_tracked) == 1


@pytest.mark.filterwarnings("ignore:.*is deprecated:FutureWarning")
@pytest.mark.parametrize("reentrant", [False, True])
def test_activations_computed_twice_are_observed_once(reentrant: bool) -> None:
    states = []
    for recomputes in (False, True):
        training, action = training_of(bert()), qat.QuantizationAction(SEED)
        if recomputes:
            training.model.gradient_checkpointing_enable({"use_reentrant": reentrant})
        for number in range(5):
            step(training, action, number)
        states.append(training.model.state_dict())
    assert equal(*states)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_scales_stay_float32_when_a_model_goes_to_half_precision(dtype: Any) -> None:
    model = trained().model
    before = {name: each.clone() for name, each in model.named_buffers() if name.endswith("scale")}
    after = dict(model.to(dtype).named_buffers())
    assert all(torch.equal(after[name], each) and after[name].dtype == torch.float32 for name, each in before.items())


def test_rounding_under_autocast_is_float32s() -> None:
    quantizer = fake.FakeQuantize(fake.Grid())
    x = torch.randn(64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = quantizer(x)
    assert torch.equal(rounded, quantizer.eval()(x))


def test_half_precision_is_off_from_the_first_quantisation_on() -> None:
    later = LegacyQuantizationModifier(start_epoch=2.5)
    assert qat.half_precision_until(Recipe((EpochRangeModifier(start_epoch=0.0, end_epoch=3.0), later, SEED))) == 1.0


def test_half_precision_stays_where_nothing_quantises() -> None:
    assert qat.half_precision_until(Recipe((EpochRangeModifier(start_epoch=0.0, end_epoch=3.0),))) is None


def test_a_scheme_that_rounds_ids_is_refused_with_the_override_that_helps() -> None:
    with pytest.raises(BadConfig, match="an embedding") as raised:
        qat.restore_structure(bert(), [QuantizationModifier(start_epoch=0.0)])
    assert "input_activations: null" in raised.value.hint


def test_a_submodule_that_the_model_lacks_is_refused_with_the_nearest() -> None:
    with pytest.raises(BadConfig, match=r"bert\.encoderr") as raised:
        qat.restore_structure(bert(), [LegacyQuantizationModifier(start_epoch=0.0, submodules=("bert.encoderr",))])
    assert "bert.encoder" in raised.value.hint


def test_a_strict_scheme_refuses_a_name_that_means_nothing() -> None:
    scheme = QuantizationModifier(start_epoch=0.0, ignore=("Embedding", "LayerNrom"))
    with pytest.raises(BadConfig, match="LayerNrom"):
        qat.restore_structure(bert(), [scheme])


def test_a_recipe_can_be_held_against_a_model_before_it_trains() -> None:
    with pytest.raises(BadConfig, match="nowhere"):
        qat.check(bert(), Recipe((LegacyQuantizationModifier(start_epoch=1.0, submodules=("nowhere",)),)))


def test_a_longer_name_wins_over_a_shorter_and_a_name_over_a_type() -> None:
    scheme = QuantizationModifier(
        start_epoch=0.0,
        scheme_overrides={
            "Linear": {"weights": {"num_bits": 4}},
            "bert.encoder": {"weights": {"num_bits": 5}},
            "bert.encoder.layer.0.output": {"weights": {"num_bits": 6}},
        },
        ignore=("Embedding", "LayerNorm"),
        strict=False,
    )
    model = bert()
    qat.restore_structure(model, [scheme])
    layer = model.bert.encoder.layer[0]
    found = [model.classifier, layer.attention.self.query, layer.output.dense]
    assert [each.module.weight_fake_quant.grid.high for each in found] == [7, 15, 31]


def test_a_convolution_rounds_its_input_and_its_weights() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1))
    definition = LegacyQuantizationModifier(start_epoch=0.0, quantize_conv_activations=False)
    qat.restore_structure(model, [definition])
    x = torch.randn(2, 2, 5, 5)
    out = model.train()(x)
    conv, entry = model[0].module, model[0].quant.activation_post_process
    expected = nn.functional.conv2d(entry.round(x), conv.weight_fake_quant.round(conv.weight), conv.bias, padding=1)
    assert torch.equal(out, expected)
    assert not torch.equal(out, nn.functional.conv2d(x, conv.weight, conv.bias, padding=1))


@pytest.mark.parametrize("is_affine", [True, False])
@pytest.mark.parametrize("per_channel", [True, False])
def test_a_quantiser_gives_torch_aos_numbers_and_state_bit_for_bit(is_affine: bool, per_channel: bool) -> None:
    grid = fake.Grid(-128, 127, not is_affine, per_channel)
    ours, theirs = fake.FakeQuantize(grid), torch_ao(grid)
    torch.manual_seed(7)
    for scale in (1.0, 3.0, 0.5):
        x = torch.randn(4, 9) * scale
        assert torch.equal(ours(x), theirs(x))
    assert equal(ours.state_dict(), theirs.state_dict())


def torch_ao(grid: fake.Grid) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch.ao import quantization as ao

        observers = {True: ao.MovingAveragePerChannelMinMaxObserver, False: ao.MovingAverageMinMaxObserver}
        kind = f"per_{'channel' if grid.per_channel else 'tensor'}_{'symmetric' if grid.symmetric else 'affine'}"
        return ao.FakeQuantize(
            observer=observers[grid.per_channel],
            quant_min=grid.low,
            quant_max=grid.high,
            dtype=torch.qint8,
            qscheme=getattr(torch, kind),
        )
