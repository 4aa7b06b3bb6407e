"""VECO's encoders against the numbers that the reference computed.

Nothing here reads a released checkpoint: the weights are the goldens' seeded ones.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers import RobertaModel, Trainer, TrainingArguments, XLMRobertaConfig

from hubcache.models.veco import (
    VecoConfig,
    VecoForMaskedLM,
    VecoForMultipleChoice,
    VecoForQuestionAnswering,
    VecoForSequenceClassification,
    VecoForTokenClassification,
    VecoModel,
)
from tests.support.goldens import golden

pytestmark = pytest.mark.train

TOLERANCE = 2e-6
HEADS = {
    "seqcls_single": VecoForSequenceClassification,
    "seqcls_multilabel": VecoForSequenceClassification,
    "multichoice": VecoForMultipleChoice,
    "tokcls": VecoForTokenClassification,
}


def arrays(path: Path) -> dict[str, torch.Tensor]:
    with np.load(path) as stored:
        return {name: torch.from_numpy(stored[name]) for name in stored}


def close(ours: torch.Tensor, reference: torch.Tensor) -> None:
    torch.testing.assert_close(ours, reference, rtol=0, atol=TOLERANCE)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Tensors this small only wait for each other's threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


class Base:
    """The golden without a head."""

    def __init__(self) -> None:
        self.folder = golden("sofa/veco/base")
        self.inputs = arrays(self.folder / "inputs.npz")
        self.outputs = arrays(self.folder / "outputs.npz")
        self.model = VecoModel.from_pretrained(self.folder, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def base() -> Base:
    return Base()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_the_last_states_and_the_pooled_state_are_the_reference_s(base: Base, attention: str) -> None:
    model = VecoModel.from_pretrained(base.folder, attn_implementation=attention).eval()
    outputs = model(**base.inputs)
    close(outputs.last_hidden_state, base.outputs["last_hidden_state"])
    close(outputs.pooler_output, base.outputs["pooler_output"])


@torch.no_grad()
def test_every_layer_s_states_are_the_reference_s(base: Base) -> None:
    states = base.model(**base.inputs, output_hidden_states=True).hidden_states
    close(torch.stack(states), base.outputs["hidden_states"])


@torch.no_grad()
def test_every_layer_s_attention_is_the_reference_s(base: Base) -> None:
    attentions = base.model(**base.inputs, output_attentions=True).attentions
    close(torch.stack(attentions), base.outputs["attentions"])


def test_positions_count_the_tokens_that_are_not_padding(base: Base) -> None:
    embeddings = base.model.embeddings
    positions = embeddings.create_position_ids_from_input_ids(base.inputs["input_ids"], embeddings.padding_idx)
    assert torch.equal(positions, base.outputs["position_ids"])


@torch.no_grad()
def test_embeddings_given_directly_get_sequential_positions(base: Base) -> None:
    embeds = base.model.embeddings.word_embeddings(base.inputs["input_ids"])
    outputs = base.model(inputs_embeds=embeds, attention_mask=base.inputs["attention_mask"])
    close(outputs.last_hidden_state, base.outputs["last_hidden_state_from_embeds"])


@torch.no_grad()
def test_padding_on_the_left_is_the_reference_s(base: Base) -> None:
    ids = base.outputs["left_padded_input_ids"]
    outputs = base.model(input_ids=ids, attention_mask=ids.ne(1).long())
    close(outputs.last_hidden_state, base.outputs["left_padded_last_hidden_state"])


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_a_head_s_loss_and_logits_are_the_reference_s(name: str) -> None:
    folder = golden(f"sofa/veco/{name}")
    outputs = HEADS[name].from_pretrained(folder).eval()(**arrays(folder / "inputs.npz"))
    reference = arrays(folder / "outputs.npz")
    close(outputs.logits, reference["logits"])
    close(outputs.loss, reference["loss"])


@torch.no_grad()
def test_without_a_mask_every_label_counts() -> None:
    folder = golden("sofa/veco/tokcls")
    inputs, reference = arrays(folder / "inputs.npz"), arrays(folder / "outputs.npz")
    del inputs["attention_mask"]
    outputs = VecoForTokenClassification.from_pretrained(folder).eval()(**inputs)
    close(outputs.logits, reference["logits_no_attention_mask"])
    close(outputs.loss, reference["loss_no_attention_mask"])


@torch.no_grad()
def test_a_label_that_is_not_attended_changes_no_loss() -> None:
    folder = golden("sofa/veco/tokcls")
    inputs = arrays(folder / "inputs.npz")
    model = VecoForTokenClassification.from_pretrained(folder).eval()
    loss = model(**inputs).loss
    inputs["labels"][inputs["attention_mask"] == 0] = 0
    assert torch.equal(model(**inputs).loss, loss)


def test_the_defaults_are_the_reference_s() -> None:
    config = VecoConfig()
    shape = (config.vocab_size, config.max_position_embeddings, config.type_vocab_size, config.layer_norm_eps)
    assert shape == (30522, 512, 2, 1e-12)
    assert (config.pad_token_id, config.bos_token_id, config.eos_token_id) == (1, 0, 2)
    assert (config.adv_grad_factor, config.sigma, config.adv_bound) == (5e-5, 5e-6, 1e-5)


def test_the_adversarial_bound_follows_sigma() -> None:
    assert VecoConfig(sigma=1e-3).adv_bound == 2e-3


def test_a_config_of_2022_survives_being_saved(base: Base, tmp_path: Path) -> None:
    config = VecoConfig.from_pretrained(base.folder)
    config.save_pretrained(tmp_path)
    assert VecoConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "veco"


@torch.no_grad()
def test_keys_with_the_prefix_load_into_the_bare_model() -> None:
    folder = golden("sofa/veco/multichoice")
    model, report = VecoModel.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert not any("position_ids" in key for key in report["unexpected_keys"])
    inputs, reference = arrays(folder / "inputs.npz"), VecoForMultipleChoice.from_pretrained(folder).eval()
    ids, mask = inputs["input_ids"].flatten(0, 1), inputs["attention_mask"].flatten(0, 1)
    pooled = model.eval()(ids, attention_mask=mask).pooler_output
    close(reference.classifier(pooled).view(3, 2), arrays(folder / "outputs.npz")["logits"])


@torch.no_grad()
def test_keys_without_the_prefix_load_under_a_head(base: Base) -> None:
    model, report = VecoForTokenClassification.from_pretrained(base.folder, output_loading_info=True)
    assert set(report["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    states = model.eval().roberta(**base.inputs).last_hidden_state
    close(states, base.outputs["last_hidden_state"])


@pytest.mark.parametrize(
    ("head", "name"),
    [
        (VecoForSequenceClassification, "classifier.dense"),
        (VecoForSequenceClassification, "classifier.out_proj"),
        (VecoForTokenClassification, "classifier"),
        (VecoForQuestionAnswering, "qa_outputs"),
        (VecoForMultipleChoice, "classifier"),
        (VecoForMaskedLM, "lm_head.dense"),
    ],
)
def test_a_head_that_the_checkpoint_lacks_starts_as_the_reference_starts_it(base: Base, head: Any, name: str) -> None:
    layer = head.from_pretrained(base.folder, num_labels=64 if head is not VecoForQuestionAnswering else 2)
    layer = layer.get_submodule(name)
    spread = layer.weight.std().item()
    assert 0.01 < spread < 0.03
    assert not layer.bias.any()


@torch.no_grad()
def test_answers_are_found_in_the_states_of_the_encoder(base: Base) -> None:
    model = VecoForQuestionAnswering.from_pretrained(base.folder).eval()
    outputs = model(**base.inputs, start_positions=torch.tensor([1, 2, 3]), end_positions=torch.tensor([2, 2, 4]))
    expected = model.qa_outputs(base.outputs["last_hidden_state"])
    close(torch.stack((outputs.start_logits, outputs.end_logits), dim=-1), expected)
    assert torch.isfinite(outputs.loss)


def released(archive: str, target: Path) -> Path:
    with tarfile.open(golden(f"sofa/tarballs/{archive}")) as tar:
        tar.extractall(target, filter="data")
    return target / "xtreme-released-veco"


@pytest.mark.parametrize(
    ("archive", "expected"),
    [
        ("xtreme-released-veco.tar.gz", "xtreme-released-veco.npz"),
        ("variants/xtreme-released-veco.model_type_xlm-roberta.tar.gz", "xtreme-released-veco__xlmr.npz"),
    ],
)
@torch.no_grad()
def test_an_unpacked_archive_loads_as_it_is(archive: str, expected: str, tmp_path: Path) -> None:
    reference = arrays(golden(f"sofa/tarballs/expected/{expected}"))
    model = VecoModel.from_pretrained(released(archive, tmp_path)).eval()
    outputs = model(reference["in/input_ids"], attention_mask=reference["in/attention_mask"])
    close(outputs.last_hidden_state, reference["last_hidden_state"])


def test_the_mask_head_of_a_released_layout_is_loaded_and_tied(tmp_path: Path) -> None:
    folder = released("xtreme-released-veco.tar.gz", tmp_path)
    model, report = VecoForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"]
    assert model.lm_head.decoder.weight is model.roberta.embeddings.word_embeddings.weight


@torch.no_grad()
def test_a_config_of_xlm_roberta_serves_as_veco_s(base: Base, tmp_path: Path) -> None:
    old = json.loads((base.folder / "config.json").read_text())
    kept = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
    config = XLMRobertaConfig(
        **{key: old[key] for key in kept}, max_position_embeddings=66, type_vocab_size=1, layer_norm_eps=1e-5
    )
    config.save_pretrained(tmp_path)
    save_file(base.model.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    outputs = VecoModel.from_pretrained(tmp_path).eval()(**base.inputs)
    close(outputs.last_hidden_state, base.outputs["last_hidden_state"])


@torch.no_grad()
def test_a_saved_model_loads_to_the_same_logits(tmp_path: Path) -> None:
    folder = golden("sofa/veco/seqcls_single")
    VecoForSequenceClassification.from_pretrained(folder).save_pretrained(tmp_path)
    outputs = VecoForSequenceClassification.from_pretrained(tmp_path).eval()(**arrays(folder / "inputs.npz"))
    close(outputs.logits, arrays(folder / "outputs.npz")["logits"])


@torch.no_grad()
def test_a_batch_of_one_is_the_same_as_in_a_batch(base: Base) -> None:
    one = base.model(base.inputs["input_ids"][2:, :6]).last_hidden_state
    close(one, base.outputs["last_hidden_state"][2:, :6])


@torch.no_grad()
def test_bfloat16_computes_what_float32_does_to_its_precision(base: Base) -> None:
    model = VecoModel.from_pretrained(base.folder, dtype=torch.bfloat16).eval()
    states = model(**base.inputs).last_hidden_state
    assert states.dtype == torch.bfloat16
    torch.testing.assert_close(states.float(), base.outputs["last_hidden_state"], rtol=0, atol=0.1)


def test_gradient_checkpointing_changes_no_gradient() -> None:
    folder = golden("sofa/veco/tokcls")
    inputs, gradients = arrays(folder / "inputs.npz"), []
    for checkpointing in (False, True):
        model = VecoForTokenClassification.from_pretrained(
            folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
        ).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**inputs).loss.backward()
        gradients.append(model.roberta.embeddings.word_embeddings.weight.grad)
    torch.testing.assert_close(*gradients, rtol=0, atol=TOLERANCE)


def test_accumulated_gradients_are_the_mean_of_the_batches_gradients(tmp_path: Path) -> None:
    folder = golden("sofa/veco/seqcls_single")
    inputs = arrays(folder / "inputs.npz")
    told = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    rows = [{name: tensor[row] for name, tensor in inputs.items()} for row in (0, 1)]
    moved = []
    for batch in (1, 2):
        model = VecoForSequenceClassification.from_pretrained(folder, **told)
        before = model.classifier.out_proj.bias.detach().clone()
        arguments = TrainingArguments(
            **{"output_dir": tmp_path, "optim": "sgd", "learning_rate": 1.0, "max_steps": 1, "max_grad_norm": 0.0},
            **{"per_device_train_batch_size": batch, "gradient_accumulation_steps": 2 // batch},
            **{"use_cpu": True, "disable_tqdm": True, "save_strategy": "no", "lr_scheduler_type": "constant"},
        )
        Trainer(model, arguments, train_dataset=rows).train()
        moved.append(model.classifier.out_proj.bias.detach() - before)
    torch.testing.assert_close(*moved, rtol=0, atol=TOLERANCE)


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_encoder_computes_the_same(base: Base) -> None:
    model = torch.compile(VecoModel.from_pretrained(base.folder).eval(), fullgraph=True)
    close(model(**base.inputs).last_hidden_state, base.outputs["last_hidden_state"])


def test_the_encoder_is_transformers_own(base: Base) -> None:
    assert type(base.model).forward is RobertaModel.forward
