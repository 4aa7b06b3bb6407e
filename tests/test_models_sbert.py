"""StructBERT computes what the original computed and behaves as a model of transformers; no training run is judged."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.goldens import golden

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

from hubcache.models import sbert  # noqa: E402 (after what may skip the file)

pytestmark = pytest.mark.train

FORWARD = 2e-6
ADVERSARIAL = 1e-12
HEADS = (
    "seqcls_single",
    "seqcls_regression",
    "mlm",
    "pretraining",
    "qa",
    "multichoice",
    "lmhead_causal",
)
ATTACKS = tuple(
    f"{head}_{case}"
    for head, cases in {
        "seqcls": ("default", "big"),
        "tokcls": ("default", "bound_active"),
        "qa": ("default", "bound_active"),
        "multichoice": ("default", "big"),
    }.items()
    for case in cases
)
SMALL = {
    "vocab_size": 338,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Compute in one thread: for models as small as these, waiting for another takes longer than the work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def meta(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "meta.json").read_text())


def load(folder: Path, **options: Any) -> Any:
    return getattr(sbert, meta(folder)["class_name"]).from_pretrained(folder, **options).eval()


def arrays(folder: Path, name: str) -> dict[str, Any]:
    with np.load(folder / f"{name}.npz") as stored:
        return {key: torch.from_numpy(np.asarray(stored[key])) for key in stored}


def assert_near(actual: Any, expected: Any, most: float) -> None:
    assert actual.shape == expected.shape
    assert (actual.detach() - expected).abs().max().item() <= most


def attacked(case: str) -> tuple[Any, dict[str, Any], dict[str, Any], int]:
    """Return an adversarial golden's model (float64, training), inputs, outputs and the seed of its noise."""
    folder = golden(f"sofa/sbert_adv/{case}")
    inputs = arrays(folder, "inputs")
    inputs.pop("noise")
    return load(folder).double().train(), inputs, arrays(folder, "outputs"), meta(folder)["seed_noise"]


def loss_of(model: Any, inputs: dict[str, Any], seed: int) -> Any:
    torch.manual_seed(seed)
    return model(**inputs).loss


def gradients(model: Any, inputs: dict[str, Any], seed: int) -> dict[str, Any]:
    model.zero_grad()
    loss_of(model, inputs, seed).backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}


def small(head: Callable[..., Any], **options: Any) -> Any:
    torch.manual_seed(0)
    return head(sbert.SbertConfig(**{**SMALL, **options}))


def texts(batch: int = 3, length: int = 12) -> dict[str, Any]:
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 338, (batch, length), generator=drawn)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, length // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


# The forward pass


@pytest.mark.parametrize("name", HEADS)
def test_a_head_returns_the_originals_numbers(name: str) -> None:
    folder = golden(f"sofa/sbert/{name}")
    with torch.no_grad():
        output = load(folder)(**arrays(folder, "inputs"))
    for key, expected in arrays(folder, "outputs").items():
        assert_near(output[key], expected, FORWARD)


@pytest.mark.parametrize("case", ATTACKS)
def test_a_head_in_evaluation_has_the_originals_plain_loss(case: str) -> None:
    model, inputs, expected, _ = attacked(case)
    loss = model.eval()(**inputs).loss
    assert_near(loss, expected["loss_eval_plain"], ADVERSARIAL)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_the_encoder_returns_the_originals_numbers(attention: str) -> None:
    folder = golden("sofa/sbert/base")
    expected = arrays(folder, "outputs")
    with torch.no_grad():
        output = load(folder, attn_implementation=attention)(**arrays(folder, "inputs"))
    for key in ("last_hidden_state", "pooler_output", "embedding_output"):
        assert_near(output[key], expected[key], FORWARD)


@pytest.mark.parametrize("key", ["hidden_states", "attentions"])
def test_the_encoder_returns_the_originals_layers(key: str) -> None:
    folder = golden("sofa/sbert/base")
    model = load(folder, attn_implementation="eager")
    with torch.no_grad():
        output = model(**arrays(folder, "inputs"), **{f"output_{key}": True})
    assert_near(torch.stack(output[key]), arrays(folder, "outputs")[key], FORWARD)


@pytest.mark.parametrize("key", ["last_hidden_state", "pooler_output"])
def test_the_encoder_given_only_input_ids_returns_the_originals_numbers(key: str) -> None:
    folder = golden("sofa/sbert/base")
    with torch.no_grad():
        output = load(folder)(arrays(folder, "inputs")["input_ids"])
    assert_near(output[key], arrays(folder, "outputs")[f"{key}_defaults"], FORWARD)


def test_the_encoder_given_embeddings_returns_the_originals_numbers() -> None:
    folder = golden("sofa/sbert/base")
    inputs = arrays(folder, "inputs")
    model = load(folder)
    with torch.no_grad():
        embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
        output = model(**inputs, inputs_embeds=embeds)
    assert_near(output.last_hidden_state, arrays(folder, "outputs")["last_hidden_state_from_embeds"], FORWARD)


def test_the_encoders_tuple_is_as_long_as_the_originals_and_ends_with_the_word_embeddings() -> None:
    folder = golden("sofa/sbert/base")
    expected = arrays(folder, "outputs")
    with torch.no_grad():
        output = load(folder)(**arrays(folder, "inputs"), return_dict=False)
    assert len(output) == meta(folder)["tuple_len_return_dict_false"]
    for actual, key in zip(output, ("last_hidden_state", "pooler_output", "embedding_output"), strict=True):
        assert_near(actual, expected[key], FORWARD)


def test_the_encoders_tuple_has_the_layers_before_the_word_embeddings() -> None:
    folder = golden("sofa/sbert/base")
    model = load(folder, attn_implementation="eager")
    output = model(**arrays(folder, "inputs"), return_dict=False, output_hidden_states=True, output_attentions=True)
    assert [len(part) for part in output] == [3, 3, 4, 3, 3]


def test_the_encoder_takes_either_words_or_embeddings() -> None:
    model = small(sbert.SbertModel)
    with pytest.raises(ValueError, match="exactly one"):
        model()
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=torch.ones(1, 2, dtype=torch.long), inputs_embeds=torch.ones(1, 2, 32))


@pytest.mark.parametrize("name", HEADS)
def test_a_heads_tuple_is_the_loss_and_the_logits(name: str) -> None:
    folder = golden(f"sofa/sbert/{name}")
    output = load(folder)(**arrays(folder, "inputs"), return_dict=False)
    for actual, expected in zip(output, arrays(folder, "outputs").values(), strict=True):
        assert_near(actual, expected, FORWARD)


def test_a_batch_of_one_is_the_same_as_in_a_batch() -> None:
    folder = golden("sofa/sbert/seqcls_single")
    model, inputs = load(folder), arrays(folder, "inputs")
    with torch.no_grad():
        alone = model(**{name: value[:1] for name, value in inputs.items()}).logits
        together = model(**inputs).logits[:1]
    assert_near(alone, together, FORWARD)


def test_the_padding_may_be_longer_without_a_difference() -> None:
    folder = golden("sofa/sbert/seqcls_single")
    model, inputs = load(folder), arrays(folder, "inputs")
    labels = inputs.pop("labels")
    longer = {name: torch.nn.functional.pad(value, (0, 5)) for name, value in inputs.items()}
    with torch.no_grad():
        assert_near(model(**longer, labels=labels).logits, model(**inputs).logits, FORWARD)


def test_a_three_way_head_on_sentences_is_a_configuration() -> None:
    inputs = texts()
    labels, order = torch.full_like(inputs["input_ids"], 7), torch.tensor([0, 2, 1])
    both = small(sbert.SbertForPreTraining, seq_relationship_size=3)
    output = both(**inputs, labels=labels, next_sentence_label=order)
    expected = torch.nn.functional.cross_entropy(output.prediction_logits.flatten(0, 1), labels.flatten())
    expected = expected + torch.nn.functional.cross_entropy(output.seq_relationship_logits, order)
    assert output.seq_relationship_logits.shape == (3, 3)
    assert_near(output.loss, expected, FORWARD)


def test_the_head_on_sentences_alone_may_be_three_way_also() -> None:
    order = torch.tensor([0, 2, 1])
    loss, logits = small(sbert.SbertForNextSentencePrediction, seq_relationship_size=3)(
        **texts(), labels=order, return_dict=False
    )
    assert_near(loss, torch.nn.functional.cross_entropy(logits, order), FORWARD)


# The adversarial loss


@pytest.mark.parametrize("case", ATTACKS)
def test_the_training_loss_is_the_originals(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    assert_near(loss_of(model, inputs, seed), expected["loss_train_total"], ADVERSARIAL)


@pytest.mark.parametrize("case", ATTACKS)
def test_the_adversarial_part_is_the_originals(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    part = loss_of(model, inputs, seed) - model.eval()(**inputs).loss
    assert_near(part, expected["adv_term"], ADVERSARIAL)


@pytest.mark.parametrize("case", ATTACKS)
def test_the_gradients_of_the_training_loss_are_the_originals(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    found = gradients(model, inputs, seed)
    wanted = {name.removeprefix("grad/"): value for name, value in expected.items() if name.startswith("grad/")}
    assert len(wanted) == 4
    for name, value in wanted.items():
        assert_near(found[name], value, ADVERSARIAL)


@pytest.mark.parametrize("case", ATTACKS)
def test_training_returns_the_plain_logits(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    torch.manual_seed(seed)
    output = model(**inputs)
    for name in set(expected) & {"logits", "start_logits", "end_logits"}:
        assert_near(output[name], expected[name], ADVERSARIAL)


@pytest.mark.parametrize("case", ["seqcls_big", "tokcls_bound_active", "qa_bound_active", "multichoice_big"])
@pytest.mark.parametrize("layer", ["embeddings.word_embeddings", "encoder.layer.1.intermediate.dense"])
def test_the_training_gradient_agrees_with_finite_differences(case: str, layer: str) -> None:
    """What the attack adds to the embeddings is held fixed: the loss is defined to treat it as a constant.

    Everything else moves with the weight: the plain loss, the clean logits inside the divergence, and the embeddings
    that the perturbation is added to.
    """
    model, inputs, expected, seed = attacked(case)
    weight = model.get_submodule(f"bert.{layer}").weight
    weights = inputs["attention_mask"] if case.startswith("tokcls") else None
    encoder = {name: inputs[name] for name in ("attention_mask", "token_type_ids")}
    targets = {name: inputs[name] for name in inputs if "label" in name or "position" in name}

    def run(embeds: Any, **more: Any) -> Any:
        return super(type(model), model).forward(inputs_embeds=embeds, **encoder, **more)

    def logits(output: Any) -> tuple[Any, ...]:
        return tuple(output[name] for name in model.attacked_logits)

    def embeddings() -> Any:
        return model.get_input_embeddings()(inputs["input_ids"])

    targets_there = dict(targets)
    if weights is not None:
        targets_there["labels"] = targets["labels"].masked_fill(weights != 1, -100)
    torch.manual_seed(seed)
    clean = logits(run(embeddings()))
    fixed = sbert.find_perturbation(embeddings(), clean, lambda e: logits(run(e)), model.config, weights)

    def total() -> Any:
        embeds = embeddings()
        plain = run(embeds, **targets_there)
        return plain.loss + sbert.divergence(logits(plain), logits(run(embeds + fixed)), weights)

    assert_near(total(), expected["loss_train_total"], ADVERSARIAL)
    model.zero_grad()
    loss_of(model, inputs, seed).backward()
    direction = torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
    if layer == "embeddings.word_embeddings":
        # The padding's row is not trained: its gradient is 0 by definition.
        direction[0] = 0
    direction /= direction.norm()
    slope = (weight.grad * direction).sum().item()
    step = 1e-4
    with torch.no_grad():
        weight += step * direction
        above = total().item()
        weight -= 2 * step * direction
        below = total().item()
    assert (above - below) / (2 * step) == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_the_perturbation_stays_within_the_bound_around_the_noise() -> None:
    config = sbert.SbertConfig(adv_grad_factor=3.0, adv_bound=0.25, sigma=0.5)
    embeds, slopes = torch.randn(2, 3, 4).double(), torch.randn(2, 3, 4).double()

    def predict(moved: Any) -> tuple[Any, ...]:
        first = (moved * slopes).sum((-2, -1))
        return (torch.stack([first, -first], -1),)

    torch.manual_seed(5)
    noise = torch.empty_like(embeds).normal_(0, 0.5)
    torch.manual_seed(5)
    step = sbert.find_perturbation(embeds, predict(embeds), predict, config) - noise
    assert step.abs().max() == pytest.approx(0.25, abs=1e-12)


def test_without_a_bound_it_is_twice_sigma() -> None:
    model, inputs, _, seed = attacked("seqcls_default")
    stored = loss_of(model, inputs, seed)
    assert model.config.adv_bound == 2 * model.config.sigma
    model.config.adv_bound = None
    assert loss_of(model, inputs, seed).item() == stored.item()


@pytest.mark.parametrize("case", ["seqcls_big", "tokcls_bound_active", "qa_bound_active", "multichoice_big"])
def test_no_adv_grad_factor_means_the_plain_loss(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    model.config.adv_grad_factor = None
    assert_near(loss_of(model, inputs, seed), expected["loss_eval_plain"], ADVERSARIAL)


@pytest.mark.parametrize("case", ["seqcls_big", "tokcls_bound_active", "qa_bound_active", "multichoice_big"])
def test_embeddings_are_attacked_as_the_words_they_come_from(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    embeds = model.get_input_embeddings()(inputs.pop("input_ids"))
    assert_near(loss_of(model, inputs | {"inputs_embeds": embeds}, seed), expected["loss_train_total"], ADVERSARIAL)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (torch.tensor([0.5, 1.0, -2.0]), "regression"),
        (torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]), "multi_label_classification"),
    ],
)
def test_other_problems_than_one_class_are_not_attacked(labels: Any, problem: str) -> None:
    num_labels = labels.shape[1] if labels.dim() == 2 else 1
    model = small(sbert.SbertForSequenceClassification, num_labels=num_labels, adv_grad_factor=1.0, sigma=0.5)
    inputs = texts() | {"labels": labels}
    trained = model.train()(**inputs).loss
    assert model.config.problem_type == problem
    assert trained.item() == model.eval()(**inputs).loss.item()


def test_training_without_labels_is_one_pass() -> None:
    model = small(sbert.SbertForSequenceClassification).train()
    passes: list[Any] = []
    model.bert.register_forward_hook(lambda *seen: passes.append(seen))
    assert model(**texts()).loss is None
    assert len(passes) == 1


def test_a_training_step_looks_up_the_words_once() -> None:
    model = small(sbert.SbertForSequenceClassification).train()
    lookups: list[Any] = []
    model.get_input_embeddings().register_forward_hook(lambda *seen: lookups.append(seen))
    model(**texts(), labels=torch.tensor([0, 1, 0]))
    assert len(lookups) == 1


def test_labels_under_padding_are_ignored() -> None:
    model, inputs, expected, _ = attacked("tokcls_default")
    padded = inputs["attention_mask"] == 0
    assert padded.any()
    changed = inputs["labels"].masked_fill(padded, 3)
    loss = model.eval()(**inputs | {"labels": changed}).loss
    assert_near(loss, expected["loss_eval_plain"], ADVERSARIAL)


def test_an_answer_beyond_the_text_is_ignored() -> None:
    model, inputs, _, _ = attacked("qa_default")
    model.eval()
    beyond = {name: inputs[name].clone() for name in ("start_positions", "end_positions")}
    for positions in beyond.values():
        positions[:2] = torch.tensor([1, 2])
        positions[2] = 500
    two = {name: value[:2] for name, value in (inputs | beyond).items()}
    assert_near(model(**inputs | beyond).loss, model(**two).loss, ADVERSARIAL)


def test_a_gradient_that_is_not_a_number_leaves_the_plain_loss_and_warns() -> None:
    model, inputs, expected, seed = attacked("seqcls_big")
    torch.manual_seed(seed)
    passes: list[Any] = []

    def spoil(_: Any, __: Any, output: Any) -> Any:
        passes.append(output)
        if len(passes) == 2:
            output.pooler_output = output.pooler_output * float("nan")
        return output

    model.bert.register_forward_hook(spoil)
    with pytest.warns(UserWarning, match="adversarial gradient is not finite"):
        loss = model(**inputs).loss
    assert_near(loss, expected["loss_eval_plain"], ADVERSARIAL)


def test_a_sequence_that_no_noise_moves_keeps_a_finite_loss() -> None:
    model = small(sbert.SbertForSequenceClassification, sigma=0.0).train()
    inputs = texts() | {"labels": torch.tensor([0, 1, 0])}
    found = gradients(model, inputs, 0)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_gradient_checkpointing_has_the_same_gradients() -> None:
    model, inputs, _, seed = attacked("seqcls_big")
    expected = gradients(model, inputs, seed)
    model.gradient_checkpointing_enable()
    found = gradients(model, inputs, seed)
    assert found.keys() == expected.keys()
    assert all((found[name] - expected[name]).abs().max() <= ADVERSARIAL for name in expected)


@pytest.mark.parametrize("case", ["seqcls_big", "tokcls_bound_active", "qa_bound_active", "multichoice_big"])
def test_a_frozen_encoder_leaves_loss_and_head_gradient_as_they_are(case: str) -> None:
    model, inputs, expected, seed = attacked(case)
    wanted = gradients(model, inputs, seed)
    model.bert.requires_grad_(False)
    found = gradients(model, inputs, seed)
    assert_near(loss_of(model, inputs, seed), expected["loss_train_total"], ADVERSARIAL)
    assert 0 < len(found) < len(wanted)
    assert all((found[name] - wanted[name]).abs().max() <= ADVERSARIAL for name in found)


def test_the_search_leaves_nothing_in_the_weights_gradients() -> None:
    model, inputs, _, seed = attacked("seqcls_big")
    loss_of(model, inputs, seed)
    assert all(weight.grad is None for weight in model.parameters())


def test_the_training_loss_can_be_watched_without_gradients() -> None:
    model, inputs, expected, seed = attacked("seqcls_big")
    with torch.no_grad():
        loss = loss_of(model, inputs, seed)
    assert not loss.requires_grad
    assert_near(loss, expected["loss_train_total"], ADVERSARIAL)


def test_the_search_works_where_the_logits_gradient_is_below_half_precision() -> None:
    """The divergence's own gradient is about 6e-9 here: 0 in float16, whose smallest number is 6e-8."""
    config = sbert.SbertConfig(adv_grad_factor=1.0, adv_bound=1.0, sigma=0.0)
    slope = torch.tensor([1.0, -0.5], dtype=torch.float16)

    def predict(moved: Any) -> tuple[Any, ...]:
        first = (moved * slope).sum((-2, -1))
        return (torch.stack([first, -first], -1),)

    embeds = torch.zeros(4096, 1, 2, dtype=torch.float16)
    clean = (torch.tensor([1e-4, 0.0]).expand(4096, 2),)
    found = sbert.find_perturbation(embeds, clean, predict, config)
    assert torch.equal(found, torch.tensor([-1.0, 0.5], dtype=torch.float16).expand(4096, 1, 2))


def test_training_under_autocast_has_a_finite_float32_loss() -> None:
    model = small(sbert.SbertForSequenceClassification, hidden_dropout_prob=0.1).train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = loss_of(model, texts() | {"labels": torch.tensor([0, 1, 0])}, 0)
    loss.backward()
    assert loss.dtype == torch.float32
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters() if weight.grad is not None)


def test_training_in_bfloat16_is_finite() -> None:
    model = small(sbert.SbertForTokenClassification, hidden_dropout_prob=0.1).to(torch.bfloat16).train()
    inputs = texts()
    found = gradients(model, inputs | {"labels": torch.ones_like(inputs["input_ids"])}, 0)
    assert all(torch.isfinite(gradient).all() for gradient in found.values())


def test_the_divergence_of_half_precision_is_computed_in_float32() -> None:
    first, second = (torch.tensor([[4.0, 1.0, -2.0]], dtype=torch.bfloat16) + shift for shift in (0.0, 0.0))
    second[0, 0] = 4.03125
    found = sbert.symmetric_kl(first, second)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(sbert.symmetric_kl(first.double(), second.double()).item(), rel=1e-4)


def test_the_divergence_is_both_divergences_over_the_number_of_classes() -> None:
    first, second = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0)).double()
    one, other = torch.distributions.Categorical(logits=first), torch.distributions.Categorical(logits=second)
    both = torch.distributions.kl_divergence(one, other) + torch.distributions.kl_divergence(other, one)
    assert sbert.symmetric_kl(first, second).item() == pytest.approx(both.mean().item() / 5, rel=1e-12)


def test_weights_select_what_the_divergence_is_the_mean_of() -> None:
    first, second = torch.randn(2, 2, 3, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1, 1, 0], [1, 0, 0]])
    kept = weights.bool()
    assert_near(sbert.symmetric_kl(first, second, weights), sbert.symmetric_kl(first[kept], second[kept]), 1e-7)


def test_a_trainer_divides_this_loss_by_its_accumulation_steps() -> None:
    trainer = transformers.Trainer(model=small(sbert.SbertForSequenceClassification))
    assert not trainer.model_accepts_loss_kwargs


# Weights and files


def test_a_model_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    folder = golden("sofa/sbert/pretraining")
    model, inputs = load(folder), arrays(folder, "inputs")
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    with torch.no_grad():
        assert (tmp_path / "model.safetensors").exists()
        assert torch.equal(again(**inputs).prediction_logits, model(**inputs).prediction_logits)


def test_the_configuration_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    config = sbert.SbertConfig(**SMALL, adv_grad_factor=None, sigma=0.5, seq_relationship_size=3, num_labels=4)
    config.save_pretrained(tmp_path)
    assert sbert.SbertConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


def test_the_configurations_defaults_are_the_originals() -> None:
    config = sbert.SbertConfig()
    assert (config.model_type, config.vocab_size, config.hidden_size, config.layer_norm_eps) == (
        "sbert",
        30522,
        768,
        1e-12,
    )
    assert (config.adv_grad_factor, config.adv_bound, config.sigma) == (5e-5, None, 5e-6)
    assert config.seq_relationship_size == 2


def test_the_word_embeddings_are_tied_to_the_output() -> None:
    model = load(golden("sofa/sbert/mlm"))
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight


def test_the_positions_of_old_checkpoints_are_no_unexpected_weights() -> None:
    folder = golden("sofa/sbert/seqcls_single")
    assert any("position_ids" in key for key in meta(folder)["state_dict_keys"])
    _, told = sbert.SbertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not told["missing_keys"]
    assert not told["unexpected_keys"]


def renamed(source: Path, target: Path, rename: Callable[[str], str]) -> None:
    target.mkdir(exist_ok=True)
    shutil.copy(source / "config.json", target)
    weights = safetensors_torch.load_file(source / "model.safetensors")
    torch.save({rename(name): weight for name, weight in weights.items()}, target / "pytorch_model.bin")


def test_the_old_names_of_layer_norms_load(tmp_path: Path) -> None:
    folder = golden("sofa/sbert/seqcls_single")

    def old(name: str) -> str:
        return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")

    renamed(folder, tmp_path, old)
    model = sbert.SbertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert_near(model(**arrays(folder, "inputs")).logits, arrays(folder, "outputs")["logits"], FORWARD)


def test_an_encoders_checkpoint_loads_into_a_head(tmp_path: Path) -> None:
    folder = golden("sofa/sbert/base")
    head, told = sbert.SbertForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    output = head.bert.eval()(**arrays(folder, "inputs"))
    assert told["missing_keys"] == {"classifier.weight", "classifier.bias"}
    assert_near(output.last_hidden_state, arrays(folder, "outputs")["last_hidden_state"], FORWARD)


def test_a_heads_checkpoint_loads_into_an_encoder() -> None:
    folder = golden("sofa/sbert/pretraining")
    encoder, told = sbert.SbertModel.from_pretrained(folder, output_loading_info=True)
    whole = load(folder)
    inputs = {name: value for name, value in arrays(folder, "inputs").items() if "label" not in name}
    assert not told["missing_keys"]
    assert torch.equal(encoder.eval()(**inputs).pooler_output, whole.bert(**inputs).pooler_output)


@pytest.mark.parametrize(
    "head",
    ["ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMultipleChoice"],
)
def test_a_head_missing_in_the_checkpoint_is_drawn_as_the_original_draws_it(head: str, tmp_path: Path) -> None:
    small(sbert.SbertModel, hidden_size=256).save_pretrained(tmp_path)
    options = {} if "Question" in head or "Choice" in head else {"num_labels": 64}
    model = getattr(sbert, f"Sbert{head}").from_pretrained(tmp_path, **options)
    layer = model.qa_outputs if "Question" in head else model.classifier
    tolerance = 5 * 0.02 / math.sqrt(2 * layer.weight.numel())
    assert layer.weight.std().item() == pytest.approx(0.02, abs=tolerance)
    assert torch.equal(layer.bias, torch.zeros_like(layer.bias))


def test_pre_training_heads_missing_in_the_checkpoint_are_drawn_as_the_original_draws_them(tmp_path: Path) -> None:
    small(sbert.SbertModel, hidden_size=256).save_pretrained(tmp_path)
    model = sbert.SbertForPreTraining.from_pretrained(tmp_path, seq_relationship_size=3)
    heads = model.cls
    assert heads.predictions.transform.dense.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert heads.seq_relationship.weight.std().item() == pytest.approx(0.02, rel=0.2)
    for bias in (heads.predictions.bias, heads.predictions.decoder.bias, heads.seq_relationship.bias):
        assert torch.equal(bias, torch.zeros_like(bias))


def test_a_fresh_model_has_the_originals_distribution() -> None:
    model = small(sbert.SbertModel, hidden_size=256)
    words = model.embeddings.word_embeddings.weight
    assert words[1:].std().item() == pytest.approx(0.02, rel=0.05)
    assert not words[0].any()


def test_a_bfloat16_forward_pass_is_close() -> None:
    folder = golden("sofa/sbert/base")
    model = load(folder, dtype=torch.bfloat16)
    with torch.no_grad():
        output = model(**arrays(folder, "inputs")).last_hidden_state
    assert output.dtype == torch.bfloat16
    # bfloat16 keeps 8 bits: the error of a few roundings of numbers up to 4.
    assert_near(output.float(), arrays(folder, "outputs")["last_hidden_state"], 0.1)


@pytest.mark.parametrize("device_map", ["auto", "cpu"])
def test_a_device_map_loads(device_map: str) -> None:
    folder = golden("sofa/sbert/seqcls_single")
    model = load(folder, device_map=device_map)
    inputs = {name: value.to(model.device) for name, value in arrays(folder, "inputs").items()}
    assert_near(model(**inputs).logits.cpu(), arrays(folder, "outputs")["logits"], FORWARD)


def test_the_language_model_generates_with_and_without_a_cache() -> None:
    model = small(sbert.SbertLMHeadModel, is_decoder=True).eval()
    ids = texts(batch=1)["input_ids"]
    cached, plain = (model.generate(ids, max_new_tokens=4, use_cache=use, do_sample=False) for use in (True, False))
    assert cached.shape == (1, 16)
    assert torch.equal(cached, plain)


@pytest.mark.slow
def test_a_compiled_encoder_is_one_graph_and_returns_the_same() -> None:
    folder = golden("sofa/sbert/base")
    model, inputs = load(folder), arrays(folder, "inputs")
    with torch.no_grad():
        compiled = torch.compile(model, fullgraph=True)(**inputs)
        assert_near(compiled.last_hidden_state, model(**inputs).last_hidden_state, FORWARD)


@pytest.mark.slow
def test_a_compiled_head_has_the_same_training_gradients() -> None:
    model, inputs, _, seed = attacked("seqcls_big")
    expected = gradients(model, inputs, seed)
    model.forward = torch.compile(model.forward, backend="aot_eager")
    found = gradients(model, inputs, seed)
    assert all((found[name] - expected[name]).abs().max() <= ADVERSARIAL for name in expected)


# The tokenizer


def tokenizer(language: str, tmp_path: Path, **options: Any) -> Any:
    shutil.copy(golden(f"sofa/tokenizers/{language}_vocab.txt"), tmp_path / "vocab.txt")
    return sbert.SbertTokenizer.from_pretrained(tmp_path, **options)


TOKENIZERS = {
    "sbert_en_default": ("en", {}),
    "sbert_en_do_lower_case_False": ("en", {"do_lower_case": False}),
    "sbert_zh_default": ("zh", {}),
    "sbert_zh_tokenize_chinese_chars_False": ("zh", {"tokenize_chinese_chars": False}),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_text_has_the_originals_tokens(name: str, tmp_path: Path) -> None:
    language, options = TOKENIZERS[name]
    ours = tokenizer(language, tmp_path, **options)
    cases = json.loads(golden("sofa/tokenizers/cases.json").read_text())[name]["cases"]
    assert [ours(case["text"])["input_ids"] for case in cases] == [case["fast"]["ids"] for case in cases]
    assert [ours.tokenize(case["text"]) for case in cases] == [case["fast"]["tokens"] for case in cases]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_pair_has_the_originals_tokens(name: str, tmp_path: Path) -> None:
    language, options = TOKENIZERS[name]
    ours = tokenizer(language, tmp_path, **options)
    for pair in json.loads(golden("sofa/tokenizers/cases.json").read_text())[name]["pairs"]:
        assert dict(ours(pair["a"], pair["b"])) == pair["fast"]
        cut = ours(pair["a"], pair["b"], max_length=12, truncation=True, padding="max_length")
        assert dict(cut) == pair["trunc12_fast"]


@pytest.mark.parametrize("keyword", ["vocab", "vocab_file"])
def test_a_tokenizer_is_made_of_a_vocabulary_by_either_name(keyword: str, tmp_path: Path) -> None:
    vocab = golden("sofa/tokenizers/en_vocab.txt")
    assert len(sbert.SbertTokenizer(**{keyword: str(vocab)})) == 338


def test_a_tokenizer_saved_and_loaded_is_the_same(tmp_path: Path) -> None:
    ours = tokenizer("en", tmp_path, do_lower_case=False)
    ours.save_pretrained(tmp_path / "saved")
    again = sbert.SbertTokenizerFast.from_pretrained(tmp_path / "saved")
    text = "hello World, this is it"
    assert again(text)["input_ids"] == ours(text)["input_ids"]


def test_the_fast_tokenizer_is_the_tokenizer() -> None:
    assert sbert.SbertTokenizerFast is sbert.SbertTokenizer
