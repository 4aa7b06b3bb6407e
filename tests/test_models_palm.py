"""PALM's model against the numbers that the reference computed: forward, loss, gradients, files.

Generation is in test_models_palm_generation.py; nothing here reads a released checkpoint.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Trainer, TrainingArguments

from hubcache.models.palm import (
    PalmConfig,
    PalmForConditionalGeneration,
    PalmModel,
    PalmTokenizer,
    PalmTokenizerFast,
)
from tests.support.goldens import golden

pytestmark = pytest.mark.train

TOLERANCE = 2e-6
VARIANTS = ("default_preln", "preln_separate")
SMALL: dict[str, Any] = {
    "vocab_size": 120,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "dec_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def arrays(path: Path) -> dict[str, Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def close(ours: Tensor, reference: Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=TOLERANCE)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Palm:
    """A golden: the folder, palm_batchify's batch, the reference's outputs, and our model of it."""

    def __init__(self, variant: str) -> None:
        self.folder = golden(f"sofa/palm/{variant}")
        self.batch = arrays(self.folder / "batchify.npz")
        self.outputs = arrays(self.folder / "outputs.npz")
        self.model = self.load()

    def load(self, **options: Any) -> Any:
        return PalmForConditionalGeneration.from_pretrained(self.folder, **options).eval()

    @property
    def standard(self) -> dict[str, Tensor]:
        """The batch in transformers' names."""
        return {
            "input_ids": self.batch["input_tokens"],
            "token_type_ids": self.batch["token_type_ids"],
            "attention_mask": self.batch["attention_mask"],
            "decoder_input_ids": self.batch["target_tokens"],
        }


@pytest.fixture(params=VARIANTS, scope="module")
def palm(request: pytest.FixtureRequest) -> Palm:
    return Palm(request.param)


@pytest.fixture(scope="module")
def default() -> Palm:
    return Palm("default_preln")


def small(**changes: Any) -> Any:
    """A model of its own for a test that changes it; no dropout, so that training is repeatable."""
    torch.manual_seed(0)
    without = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    model = PalmForConditionalGeneration(PalmConfig(**(SMALL | without | changes)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def small_batch() -> dict[str, Tensor]:
    """Two rows, the second padded on both sides of the model."""
    torch.manual_seed(1)
    rows = [
        {
            "input_ids": [101, *torch.randint(1, 100, (length - 2,)).tolist(), 102] + [0] * (10 - length),
            "input_mask": [1] * length + [0] * (10 - length),
            "segment_ids": [0] * 10,
            "target_ids": [101, *torch.randint(1, 100, (length - 4,)).tolist(), 102] + [0] * (8 - length + 2),
        }
        for length in (10, 7)
    ]
    return PalmForConditionalGeneration.palm_batchify(rows)


# What the reference computed.


@torch.no_grad()
def test_the_encoder_s_embeddings_are_the_reference_s(palm: Palm) -> None:
    embedded = palm.model.model.bert.embeddings(palm.batch["input_tokens"], palm.batch["token_type_ids"])
    close(embedded, palm.outputs["embeddings_encoder"])


@torch.no_grad()
def test_the_decoder_s_embeddings_are_the_reference_s(palm: Palm) -> None:
    close(palm.model.model.bert.embeddings(palm.batch["target_tokens"]), palm.outputs["embeddings_decoder"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_every_layer_s_output_is_the_reference_s(palm: Palm, attention: str) -> None:
    outputs = palm.load(attn_implementation=attention)(**palm.standard, output_hidden_states=True)
    close(torch.stack(outputs.encoder_hidden_states[1:]), palm.outputs["encoder_layer_outputs"])
    close(torch.stack(outputs.decoder_hidden_states[1:]), palm.outputs["decoder_layer_outputs"])


@torch.no_grad()
def test_the_encoder_s_final_norm_is_applied_twice(palm: Palm) -> None:
    outputs = palm.model(**palm.standard, output_hidden_states=True)
    once = palm.model.model.bert.encoder.LayerNorm(outputs.encoder_hidden_states[-1])
    close(once, palm.outputs["encoder_all_layers_mode_last"])
    close(outputs.encoder_last_hidden_state, palm.outputs["encoder_sequence_output"])


@torch.no_grad()
def test_the_pooled_output_is_the_first_token_s(palm: Palm) -> None:
    encoded = palm.model.get_encoder()(
        palm.batch["input_tokens"], palm.batch["attention_mask"], palm.batch["token_type_ids"]
    )
    close(encoded.last_hidden_state[:, 0], palm.outputs["encoder_pooled"])


@torch.no_grad()
def test_the_sequence_relationship_head_is_the_reference_s(palm: Palm) -> None:
    scores = palm.model.model.cls.seq_relationship(palm.outputs["encoder_pooled"])
    close(scores, palm.outputs["seq_relationship_score_unused"])


@torch.no_grad()
def test_the_decoder_s_final_states_are_the_reference_s(palm: Palm) -> None:
    decoded = palm.model.model.decode(
        palm.batch["target_tokens"], palm.outputs["encoder_sequence_output"], palm.batch["attention_mask"]
    )
    close(decoded.last_hidden_state, palm.outputs["decoder_final"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_the_logits_are_the_reference_s_in_its_own_convention(palm: Palm, attention: str) -> None:
    _, logits = palm.load(attn_implementation=attention)(**palm.batch)
    close(logits, palm.outputs["logits"])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@torch.no_grad()
def test_the_logits_are_the_reference_s_in_transformers_names(palm: Palm, attention: str) -> None:
    close(palm.load(attn_implementation=attention)(**palm.standard).logits, palm.outputs["logits"])


@torch.no_grad()
def test_is_infer_returns_scores_logits_and_the_encoder_s_output(palm: Palm) -> None:
    scores, logits, sequence_output = palm.model(**palm.batch, is_infer=True)
    close(scores, palm.outputs["infer_prediction_scores"])
    close(logits, palm.outputs["infer_logits"])
    close(sequence_output, palm.outputs["infer_sequence_output"])


@torch.no_grad()
def test_with_a_sequence_output_the_encoder_does_not_run(palm: Palm) -> None:
    given = palm.outputs["infer_sequence_output"]
    batch = {name: array for name, array in palm.batch.items() if name != "input_tokens"}
    scores, logits, sequence_output = palm.model(**batch, is_infer=True, sequence_output=given)
    assert scores is None
    assert sequence_output is given
    close(logits, palm.outputs["infer_logits"])


@torch.no_grad()
def test_palm_model_takes_and_returns_what_the_reference_s_does(palm: Palm) -> None:
    model, loading = PalmModel.from_pretrained(palm.folder, output_loading_info=True)
    assert not any(loading.values())
    batch = palm.batch
    scores, logits = model.eval()(
        batch["input_tokens"],
        batch["token_type_ids"],
        batch["attention_mask"],
        batch["target_tokens"],
        batch["position_ids"],
        batch["decode_attention_mask"],
    )
    close(scores, palm.outputs["prediction_scores"])
    close(logits, palm.outputs["logits"])


@torch.no_grad()
def test_the_causal_mask_may_be_left_out(palm: Palm) -> None:
    batch = {name: array for name, array in palm.batch.items() if name != "decode_attention_mask"}
    _, logits = palm.model(**batch)
    close(logits, palm.outputs["logits"])


def test_without_anything_to_decode_the_message_says_so(default: Palm) -> None:
    with pytest.raises(ValueError, match="decode_input_ids"):
        default.model.model(default.batch["input_tokens"])


@torch.no_grad()
def test_another_decoder_mask_is_used_as_given(default: Palm) -> None:
    batch = default.batch | {"decode_attention_mask": torch.ones_like(default.batch["decode_attention_mask"])}
    assert not torch.allclose(default.model(**batch)[1][:, 0], default.outputs["logits"][:, 0], atol=1e-3)


# The loss.


@torch.no_grad()
def test_the_loss_counts_what_dec_loss_mask_says(palm: Palm) -> None:
    loss, _ = palm.model(**palm.batch)
    close(loss, palm.outputs["loss_if_mask_were_effective"])


@torch.no_grad()
def test_loss_over_padding_is_the_reference_s_loss(palm: Palm) -> None:
    loss, _ = palm.load(loss_over_padding=True)(**palm.batch)
    close(loss, palm.outputs["loss"])


@torch.no_grad()
def test_every_token_s_cross_entropy_is_the_reference_s(palm: Palm) -> None:
    _, logits = palm.model(**palm.batch)
    losses = F.cross_entropy(logits.flatten(0, 1), palm.batch["labels"].flatten(), reduction="none")
    close(losses, palm.outputs["per_token_ce"])


@pytest.mark.parametrize("padding", [0, -100])
@torch.no_grad()
def test_in_transformers_names_padding_labels_are_left_out(palm: Palm, padding: int) -> None:
    real = palm.batch["labels"] != 0
    outputs = palm.model(**palm.standard, labels=palm.batch["labels"].masked_fill(~real, padding))
    close(outputs.loss, palm.outputs["per_token_ce"][real.flatten()].mean())


@torch.no_grad()
def test_labels_alone_make_the_decoder_s_input(palm: Palm) -> None:
    # The goldens' targets begin with the start token: shifted, the labels are the targets again.
    inputs = {name: array for name, array in palm.standard.items() if name != "decoder_input_ids"}
    labels = palm.batch["labels"].masked_fill(palm.batch["labels"] == 0, -100)
    close(palm.model(**inputs, labels=labels).logits, palm.outputs["logits"])


@torch.no_grad()
def test_a_batch_that_is_all_padding_has_a_loss_of_zero(default: Palm) -> None:
    labels = torch.full_like(default.batch["labels"], -100)
    assert default.model(**default.standard, labels=labels).loss == 0


def test_the_gradients_are_the_reference_s(palm: Palm) -> None:
    model = palm.load(loss_over_padding=True)
    loss, _ = model(**palm.batch)
    loss.backward()
    parameters = dict(model.model.named_parameters())
    expected = {name.removeprefix("grad/"): array for name, array in palm.outputs.items() if name.startswith("grad/")}
    assert expected
    for name, gradient in expected.items():
        close(parameters[name].grad, gradient)


def test_the_same_parameters_are_without_a_gradient_as_in_the_reference(palm: Palm) -> None:
    model = palm.load()
    model(**palm.batch)[0].backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    told = json.loads((palm.folder / "meta.json").read_text())
    assert sorted(without) == sorted(told["params_without_grad"])


def test_palm_batchify_makes_the_reference_s_batch(palm: Palm) -> None:
    rows = arrays(palm.folder / "inputs.npz")
    count = len(rows["input_ids"])
    batch = palm.model.palm_batchify(
        [{name: array[row].tolist() for name, array in rows.items()} for row in range(count)]
    )
    assert batch.keys() == palm.batch.keys()
    for name, array in palm.batch.items():
        torch.testing.assert_close(batch[name], array, rtol=0, atol=0)


# Files.


def test_the_checkpoint_loads_with_nothing_missing_or_unexpected(palm: Palm) -> None:
    _, loading = PalmForConditionalGeneration.from_pretrained(palm.folder, output_loading_info=True)
    assert not any(loading.values())


def test_the_state_dict_has_the_original_names_and_shapes(palm: Palm) -> None:
    told = json.loads((palm.folder / "meta.json").read_text())["state_dict_keys"]
    assert {name: list(array.shape) for name, array in palm.model.model.state_dict().items()} == told


def test_palm_model_pt_is_model_safetensors(palm: Palm) -> None:
    model = PalmForConditionalGeneration(palm.model.config)
    model.model.load_state_dict(torch.load(palm.folder / "palm_model.pt"), strict=True)
    loaded = palm.model.state_dict()
    assert all(torch.equal(array, loaded[name]) for name, array in model.state_dict().items())


def test_the_tied_copy_is_the_word_embeddings(palm: Palm) -> None:
    assert palm.model.model.cls.predictions.decoder_weight is palm.model.get_input_embeddings().weight


def test_the_published_model_has_the_published_size() -> None:
    with torch.device("meta"):
        model = PalmForConditionalGeneration(PalmConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) == 217_777_155
    assert len(model.model.state_dict()) == 403


@torch.no_grad()
def test_what_is_saved_loads_as_either_class(palm: Palm, tmp_path: Path) -> None:
    palm.model.save_pretrained(tmp_path)
    again, loading = PalmForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    inner, inner_loading = PalmModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert not any(inner_loading.values())
    assert torch.equal(again.eval()(**palm.batch)[1], palm.model(**palm.batch)[1])
    assert torch.equal(inner.eval().cls.predictions.bias, palm.model.model.cls.predictions.bias)


@torch.no_grad()
def test_a_saved_palm_model_loads_as_the_generating_class(palm: Palm, tmp_path: Path) -> None:
    palm.model.model.save_pretrained(tmp_path)
    again, loading = PalmForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(loading.values())
    assert torch.equal(again.eval()(**palm.batch)[1], palm.model(**palm.batch)[1])


def test_what_a_checkpoint_lacks_is_initialised_as_the_reference_does(default: Palm, tmp_path: Path) -> None:
    weights = load_file(default.folder / "model.safetensors")
    save_file(
        {name: array for name, array in weights.items() if "embeddings.word" in name}, tmp_path / "model.safetensors"
    )
    shutil.copy(default.folder / "config.json", tmp_path)
    model = PalmForConditionalGeneration.from_pretrained(tmp_path)
    fresh = {name: value for name, value in model.named_parameters() if "word_embeddings" not in name}
    for name, value in fresh.items():
        if name.endswith("bias"):
            assert not value.any(), name
        elif re.search(r"layer_?norm\.weight", name, re.IGNORECASE):
            assert torch.equal(value, torch.ones_like(value)), name
        else:
            assert value.std().item() == pytest.approx(0.00707, rel=0.25), name


def test_a_new_model_is_tied_and_initialised_as_the_reference_does() -> None:
    model = PalmForConditionalGeneration(PalmConfig(**SMALL))
    predictions = model.model.cls.predictions
    assert predictions.decoder_weight is model.get_input_embeddings().weight
    assert predictions.decoder_weight.std().item() == pytest.approx(0.00707, rel=0.1)
    assert not predictions.bias.any()


@torch.no_grad()
def test_the_vocabulary_can_be_resized_and_saved(tmp_path: Path) -> None:
    model, batch = small().eval(), small_batch()
    before = model(**batch, is_infer=True)
    model.resize_token_embeddings(130)
    after = model(**batch, is_infer=True)
    assert [array.shape[-1] for array in after[:2]] == [130, 130]
    close(after[0][..., :120], before[0])
    model.save_pretrained(tmp_path)
    again = PalmForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**batch, is_infer=True)[1], after[1])


# The configuration.


def test_layer_norm_eps_is_another_name_of_layernorm_epsilon() -> None:
    assert PalmConfig(layer_norm_eps=1e-5).layernorm_epsilon == 1e-5
    assert PalmConfig(layernorm_epsilon=1e-6).layer_norm_eps == 1e-6


def test_both_names_of_the_epsilon_may_stand_in_one_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "palm", "layer_norm_eps": 1e-5, "layernorm_epsilon": 1e-5})
    )
    assert PalmConfig.from_pretrained(tmp_path).layernorm_epsilon == 1e-5


def test_an_old_file_s_nulls_and_false_are_repaired(palm: Palm) -> None:
    old = json.loads((palm.folder / "config.json").read_text())
    assert old["is_encoder_decoder"] is False
    assert old["pad_token_id"] is old["eos_token_id"] is old["decoder_start_token_id"] is None
    config = PalmConfig.from_pretrained(palm.folder)
    assert config.is_encoder_decoder
    assert (config.pad_token_id, config.eos_token_id, config.decoder_start_token_id) == (0, 102, 101)


def test_a_config_survives_saving(tmp_path: Path) -> None:
    config = PalmConfig(**SMALL, pre_ln=False, attn_separate=True, loss_over_padding=True, eos_token_id=7)
    config.save_pretrained(tmp_path)
    assert PalmConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_heads_that_do_not_divide_the_hidden_size_are_refused() -> None:
    with pytest.raises(ValueError, match="5 heads"):
        PalmForConditionalGeneration(PalmConfig(**(SMALL | {"num_attention_heads": 5})))


# The encoder that no golden here covers.


def attended(heads: list[Tensor], mask: Tensor, count: int) -> Tensor:
    """The facts' text: q and k each divided by d^(1/4), -10000 for what is not seen."""
    batch, length, size = heads[0].shape
    query, key, value = (part.view(batch, length, count, size // count).transpose(1, 2) for part in heads)
    root = math.sqrt(math.sqrt(size / count))
    scores = (query / root) @ (key / root).transpose(2, 3) + (1.0 - mask[:, None, None, :].float()) * -10000.0
    return (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, size)


def post_ln_encoder(weights: dict[str, Tensor], embedded: Tensor, mask: Tensor, config: Any) -> Tensor:
    """A post-LN encoder, written out from the facts and a state_dict."""

    def linear(name: str, states: Tensor) -> Tensor:
        return F.linear(states, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, states: Tensor) -> Tensor:
        centred = states - states.mean(-1, keepdim=True)
        scaled = centred / torch.sqrt(centred.pow(2).mean(-1, keepdim=True) + config.layernorm_epsilon)
        return weights[f"{name}.weight"] * scaled + weights[f"{name}.bias"]

    states = embedded
    for index in range(config.num_hidden_layers):
        layer = f"bert.encoder.layer.{index}"
        own = f"{layer}.attention.self"
        if config.attn_separate:
            heads = [linear(f"{own}.{name}", states) for name in ("query", "key", "value")]
        else:
            heads = list(linear(f"{own}.query_key_value", states).chunk(3, -1))
        context = linear(f"{layer}.attention.output.dense", attended(heads, mask, config.num_attention_heads))
        states = norm(f"{layer}.attention.output.LayerNorm", states + context)
        wide = F.gelu(linear(f"{layer}.intermediate.dense", states))
        states = norm(f"{layer}.output.LayerNorm", states + linear(f"{layer}.output.dense", wide))
    return states


@pytest.mark.parametrize("separate", [False, True])
@torch.no_grad()
def test_a_post_ln_encoder_is_what_the_facts_say(separate: bool) -> None:
    model, batch = small(pre_ln=False, attn_separate=separate).eval(), small_batch()
    embedded = model.model.bert.embeddings(batch["input_tokens"])
    expected = post_ln_encoder(model.model.state_dict(), embedded, batch["attention_mask"], model.config)
    encoded = model.get_encoder()(batch["input_tokens"], batch["attention_mask"]).last_hidden_state
    close(encoded, expected)


def test_a_post_ln_encoder_has_no_pre_ln_parameters() -> None:
    names = small(pre_ln=False).model.bert.encoder.state_dict()
    assert not [name for name in names if re.search(r"^LayerNorm|^layer\.\d+\.(attention\.)?LayerNorm", name)]


# Shapes, padding, kinds of attention.


@torch.no_grad()
def test_a_batch_of_one_is_the_same_as_in_a_batch(palm: Palm) -> None:
    whole = palm.model(**palm.standard).logits
    for row in range(len(whole)):
        close(
            palm.model(**{name: array[row : row + 1] for name, array in palm.standard.items()}).logits,
            whole[row : row + 1],
        )


@torch.no_grad()
def test_padding_on_the_right_changes_nothing(palm: Palm) -> None:
    length = int(palm.batch["attention_mask"][2].sum())
    alone = {name: array[2:3] for name, array in palm.standard.items()}
    for name in ("input_ids", "token_type_ids", "attention_mask"):
        alone[name] = alone[name][:, :length]
    close(palm.model(**alone).logits, palm.outputs["logits"][2:3])


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("mask", ["left", "everything"])
@torch.no_grad()
def test_padding_on_the_left_or_everywhere_is_finite(default: Palm, attention: str, mask: str) -> None:
    inputs = default.standard
    seen = inputs["attention_mask"].flip(1) if mask == "left" else torch.zeros_like(inputs["attention_mask"])
    logits = default.load(attn_implementation=attention)(**(inputs | {"attention_mask": seen})).logits
    assert logits.isfinite().all()


@torch.no_grad()
def test_without_a_mask_all_is_seen(default: Palm) -> None:
    seen = torch.ones_like(default.standard["attention_mask"])
    bare = {name: array for name, array in default.standard.items() if name != "attention_mask"}
    close(default.model(**bare).logits, default.model(**bare, attention_mask=seen).logits)


@torch.no_grad()
def test_eager_attention_gives_its_weights(default: Palm) -> None:
    outputs = default.load(attn_implementation="eager")(**default.standard, output_attentions=True)
    assert [tuple(weights.shape) for weights in outputs.encoder_attentions] == [(3, 4, 14, 14)] * 2
    assert [tuple(weights.shape) for weights in outputs.decoder_attentions] == [(3, 4, 9, 9)] * 2
    assert [tuple(weights.shape) for weights in outputs.cross_attentions] == [(3, 4, 9, 14)] * 2
    close(outputs.cross_attentions[0].sum(-1), torch.ones(3, 4, 9))


def test_attention_weights_are_not_to_be_had_of_sdpa(default: Palm) -> None:
    with pytest.raises(ValueError, match="eager"):
        default.model(**default.standard, output_attentions=True)


@torch.no_grad()
def test_return_dict_false_gives_a_tuple(default: Palm) -> None:
    outputs = default.model(**default.standard, labels=default.batch["labels"], return_dict=False)
    assert isinstance(outputs, tuple)
    close(outputs[1], default.outputs["logits"])


@torch.no_grad()
def test_bfloat16_is_close(default: Palm) -> None:
    model = default.load(dtype=torch.bfloat16)
    logits = model(**default.standard).logits
    assert logits.dtype == torch.bfloat16
    torch.testing.assert_close(logits.float(), default.outputs["logits"], rtol=0.05, atol=0.1)


@torch.no_grad()
def test_a_device_map_changes_nothing(palm: Palm) -> None:
    close(palm.load(device_map="auto")(**palm.batch)[1], palm.outputs["logits"])


@torch.no_grad()
def test_a_model_whose_weights_lie_on_disk_computes_the_same(default: Palm, tmp_path: Path) -> None:
    places = {"model.bert": "disk", "model.decoder": "disk", "model.cls": "disk"}
    model = default.load(device_map=places, offload_folder=tmp_path)
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    close(model(**default.batch)[1], default.outputs["logits"])


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_model_computes_the_same(palm: Palm) -> None:
    compiled = torch.compile(palm.load())
    close(compiled(**palm.standard).logits, palm.outputs["logits"])
    close(compiled(**palm.batch)[1], palm.outputs["logits"])


# Training.


def gradients(model: Any, **options: Any) -> tuple[list[Tensor], int]:
    """A training step's gradients, and how many tensors it kept for the way back."""
    kept = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += 1
        return tensor

    model.train().zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss, _ = model(**small_batch(), **options)
    loss.backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], kept


def enabled(model: Any) -> dict[str, Any]:
    model.gradient_checkpointing_enable()
    return {}


def asked(model: Any) -> dict[str, Any]:
    return {"checkpoint_activations": True}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
@pytest.mark.parametrize("how", [enabled, asked])
def test_checkpointing_keeps_less_and_gives_the_same_gradients(how: Callable[[Any], dict[str, Any]]) -> None:
    expected, kept = gradients(small())
    model = small()
    found, kept_less = gradients(model, **how(model))
    assert kept_less < kept / 2
    for ours, theirs in zip(found, expected, strict=True):
        close(ours, theirs)


def test_checkpoint_activations_is_for_one_call() -> None:
    model = small()
    _, kept = gradients(model)
    gradients(model, checkpoint_activations=True)
    assert gradients(model)[1] == kept


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_a_checkpointed_model_in_training_makes_no_cache() -> None:
    model = small()
    enabled(model)
    batch = small_batch()
    outputs = model.train()(input_ids=batch["input_tokens"], decoder_input_ids=batch["target_tokens"])
    assert outputs.past_key_values is None
    outputs.logits.sum().backward()


def test_the_trainer_trains_with_palm_batchify_and_saves(default: Palm, tmp_path: Path) -> None:
    model = default.load()
    rows = arrays(default.folder / "inputs.npz")
    data = [{name: array[row] for name, array in rows.items()} for row in range(3)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=4,
        learning_rate=1e-2,
        per_device_train_batch_size=3,
        gradient_accumulation_steps=2,
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        logging_steps=1,
        save_steps=4,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=data, data_collator=model.palm_batchify)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[0] == pytest.approx(float(default.outputs["loss_if_mask_were_effective"]), abs=1.0)
    assert losses[-1] < losses[0] - 1
    PalmForConditionalGeneration.from_pretrained(tmp_path / "checkpoint-4")


# The tokenizer and the released-looking archive.


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("archive")
    with tarfile.open(golden("sofa/tarballs/chinese-palm-base.tar.gz")) as packed:
        packed.extractall(folder, filter="data")
    return folder


def test_a_folder_with_only_a_vocab_txt_makes_the_reference_s_tokenizer(archive: Path, tmp_path: Path) -> None:
    shutil.copy(archive / "vocab.txt", tmp_path)
    told = json.loads(golden("sofa/tarballs/expected/chinese-palm-base.tokenizer.json").read_text())
    tokenizer = PalmTokenizer.from_pretrained(tmp_path)
    padded = {"padding": "max_length", "max_length": 32, "truncation": True}
    assert dict(tokenizer(told["texts"], **padded)) == told["fast"]
    assert [tokenizer.tokenize(text) for text in told["texts"]] == told["tokens"]
    assert {name: getattr(tokenizer, name) for name in told["special"]} == told["special"]
    assert len(tokenizer) == told["len"]


def test_the_fast_tokenizer_is_the_same_class() -> None:
    assert PalmTokenizerFast is PalmTokenizer


@torch.no_grad()
def test_the_archive_s_weights_give_the_reference_s_logits(archive: Path) -> None:
    expected = arrays(golden("sofa/tarballs/expected/chinese-palm-base.npz"))
    batch = {name.removeprefix("in/"): array for name, array in expected.items() if name.startswith("in/")}
    model = PalmForConditionalGeneration(PalmConfig.from_pretrained(archive)).eval()
    model.model.load_state_dict(torch.load(archive / "palm_model.pt"), strict=True)
    _, logits, sequence_output = model(**batch, is_infer=True)
    close(logits, expected["logits"])
    close(sequence_output, expected["sequence_output"])
