"""Child-Tuning against the numbers that the reference computed, and on transformers' Trainer.

The goldens give the reference's own optimizer; here it is also held to what no golden says: order, resuming, processes.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import (
    Adafactor,
    BertConfig,
    BertForSequenceClassification,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    get_linear_schedule_with_warmup,
)

from hubcache.train.child_tuning import (
    MASKS_FILE,
    TASK_DRIVEN,
    TASK_FREE,
    ChildTuningAdamW,
    TaskDrivenMask,
    TaskFreeMask,
    apply_child_tuning,
    apply_child_tuning_to_trainer,
    calculate_fisher,
    calculate_fisher_of_trainer,
    fisher_information,
    fisher_threshold,
    load_masks,
    mask_gradients,
    masks_by_parameter,
    order_statistic,
)
from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch.set_num_threads(1)  # the models are so small that a second thread only waits for the first

OPTIMIZER = 6e-8  # what goldens/sofa/README.md says an independent re-implementation reached
FORWARD = 2e-6
RUNS = ["F_default", "F_nobias_correction", "D_p03", "plain_mode_none"]
LAYERS = ["embed", "layer0", "layer1", "classifier"]


# The goldens: a four-layer perceptron


class Perceptron(nn.Module):
    def __init__(self, inputs: Any) -> None:
        super().__init__()
        for name in LAYERS:
            rows, columns = inputs[f"init/{name}.weight"].shape
            setattr(self, name, nn.Linear(columns, rows))
        self.load_state_dict({name: torch.tensor(inputs[f"init/{name}"]) for name in self.state_dict()})

    def forward(self, x: Tensor) -> Tensor:
        for name in LAYERS[:-1]:
            x = torch.tanh(getattr(self, name)(x))
        return self.classifier(x)


def recorded(name: str) -> Any:
    return np.load(golden("sofa/childtuning") / f"{name}.npz")


def described(name: str) -> dict[str, Any]:
    return json.loads((golden("sofa/childtuning") / f"{name}.json").read_text())


def perceptron() -> Perceptron:
    return Perceptron(recorded("inputs"))


def batches() -> list[tuple[Tensor, Tensor]]:
    inputs = recorded("inputs")
    x, y = torch.tensor(inputs["X"]), torch.tensor(inputs["Y"])
    return [(x[start : start + 8], y[start : start + 8]) for start in (0, 8, 16)]


def loss_of(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return cross_entropy(model(batch[0]), batch[1])


def recorded_optimizer(model: nn.Module, name: str) -> ChildTuningAdamW:
    about, named = described(name), dict(model.named_parameters())
    ordered = [named[parameter] for parameter in about["sample_order"]]
    if about["weight_decay_groups"] is None:
        optimizer = ChildTuningAdamW(ordered, **about["optimizer_kwargs"])
    else:
        groups = [{"params": ordered[:4], "weight_decay": 0.1}, {"params": ordered[4:], "weight_decay": 0.0}]
        optimizer = ChildTuningAdamW(groups, **about["optimizer_kwargs"])
    if optimizer.mode == TASK_DRIVEN:
        fisher = recorded("fisher_p03")
        masks = {key[5:]: torch.tensor(fisher[key]) for key in fisher.files if key.startswith("mask/")}
        optimizer.set_gradient_mask(masks_by_parameter(model, masks))
    return optimizer


def replay(name: str) -> dict[str, np.ndarray]:
    """Return what five steps make of the recorded gradients, and each step's own loss and gradients before it."""
    model, theirs = perceptron(), recorded(name)
    optimizer, named = recorded_optimizer(model, name), dict(model.named_parameters())
    ours: dict[str, np.ndarray] = {}
    torch.manual_seed(described(name)["seed_before_step0"])
    for step in range(5):
        model.zero_grad()
        loss = loss_of(model, batches()[step % 3])
        loss.backward()
        ours[f"step{step}/loss"] = loss.detach().numpy()
        for key, p in named.items():
            ours[f"step{step}/grad/{key}"] = p.grad.numpy().copy()
            p.grad.copy_(torch.tensor(theirs[f"step{step}/grad/{key}"]))
        optimizer.step()
        for key, p in named.items():
            state = optimizer.state[p]
            ours[f"step{step}/param/{key}"] = p.detach().numpy().copy()
            ours[f"step{step}/grad_after/{key}"] = p.grad.numpy().copy()
            ours[f"step{step}/exp_avg/{key}"] = state["exp_avg"].numpy().copy()
            ours[f"step{step}/exp_avg_sq/{key}"] = state["exp_avg_sq"].numpy().copy()
    return ours


def farthest(ours: dict[str, np.ndarray], theirs: Any, kinds: set[str]) -> float:
    return max(float(np.abs(ours[key] - theirs[key]).max()) for key in theirs.files if key.split("/")[1] in kinds)


@pytest.mark.parametrize("name", RUNS)
def test_the_optimizer_makes_the_references_steps_of_its_gradients(name: str) -> None:
    assert farthest(replay(name), recorded(name), {"param", "grad_after", "exp_avg", "exp_avg_sq"}) <= OPTIMIZER


@pytest.mark.parametrize("name", RUNS)
def test_a_training_has_the_references_losses_and_gradients(name: str) -> None:
    assert farthest(replay(name), recorded(name), {"loss", "grad"}) <= FORWARD


@pytest.mark.parametrize("name", ["F_default", "F_nobias_correction"])
def test_f_draws_the_references_masks(name: str) -> None:
    theirs, about = recorded(name), described(name)
    model = perceptron()
    named = dict(model.named_parameters())
    ordered = [named[parameter] for parameter in about["sample_order"]]
    share = about["optimizer_kwargs"].get("reserve_p", 0.2)
    mask = TaskFreeMask(share)
    torch.manual_seed(about["seed_before_step0"])
    for step in range(5):
        for p in ordered:
            p.grad = torch.full_like(p, share)
        mask(ordered)
        for key, p in named.items():
            np.testing.assert_array_equal(p.grad.numpy() != 0, theirs[f"step{step}/mask/{key}"] == 1)


@pytest.mark.parametrize(("name", "limit"), [("fisher_p03", 1.0), ("fisher_p03_maxgradnorm0", 0.0)])
def test_fisher_information_is_the_references(name: str, limit: float) -> None:
    fisher, theirs = fisher_information(perceptron(), batches(), loss_of, limit), recorded(name)
    assert {f"fisher/{key}" for key in fisher} == {key for key in theirs.files if key.startswith("fisher/")}
    for key, values in fisher.items():
        np.testing.assert_allclose(values.numpy(), theirs[f"fisher/{key}"], rtol=0, atol=OPTIMIZER)


@pytest.mark.parametrize(("name", "limit"), [("fisher_p03", 1.0), ("fisher_p03_maxgradnorm0", 0.0)])
def test_fisher_masks_are_the_references(name: str, limit: float) -> None:
    masks, theirs = calculate_fisher(perceptron(), batches(), loss_of, 0.3, limit), recorded(name)
    for key, mask in masks.items():
        np.testing.assert_array_equal(mask.numpy(), theirs[f"mask/{key}"])


def test_the_threshold_of_the_references_information_is_the_references() -> None:
    theirs = recorded("fisher_p03")
    fisher = [torch.tensor(theirs[key]) for key in theirs.files if key.startswith("fisher/")]
    assert fisher_threshold(fisher, 0.3) == float(theirs["polar"])


def test_the_information_is_the_mean_square_of_the_recorded_gradients() -> None:
    theirs, model = recorded("fisher_p03"), perceptron()
    for number, batch in enumerate(batches()):
        model.zero_grad()
        loss_of(model, batch).backward()
        for key in ("layer0.weight", "layer1.bias"):
            grad = model.get_parameter(key).grad.numpy()
            np.testing.assert_allclose(grad, theirs[f"batch{number}/rawgrad/{key}"], rtol=0, atol=OPTIMIZER)


def test_f_keeps_the_share_it_is_told_and_scales_it() -> None:
    facts = json.loads((golden("sofa/childtuning") / "meta.json").read_text())["F_statistics"]
    parameter = nn.Parameter(torch.zeros(facts["n"]))
    parameter.grad = torch.ones(facts["n"])
    torch.manual_seed(facts["seed"])
    TaskFreeMask(facts["reserve_p"])([parameter])
    assert (parameter.grad.unique().tolist(), float(parameter.grad.mean())) == (
        facts["unique_grad_values"],
        pytest.approx(facts["mean"], abs=1e-6),
    )


# The golden of a whole training: transformers' Trainer, Child-Tuning-D


def recorded_model() -> BertForSequenceClassification:
    runs = golden("sofa/runs")
    config = json.loads((runs / "trainer_ctD_config.json").read_text())
    kept = (
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act type_vocab_size"
        " max_position_embeddings layer_norm_eps attention_probs_dropout_prob hidden_dropout_prob problem_type"
    )
    model = BertForSequenceClassification(BertConfig(num_labels=2, **{key: config[key] for key in kept.split()}))
    weights = load_file(runs / "trainer_ctD_init.safetensors")
    model.load_state_dict({key: value for key, value in weights.items() if "position_ids" not in key})
    return model


def recorded_trainer(model: nn.Module, folder: Path) -> Trainer:
    rows = np.load(golden("sofa/runs") / "trainer_ctD.npz")
    pairs = zip(rows["input_ids"], rows["labels"], strict=True)
    arguments = settings(folder, num_train_epochs=1, weight_decay=0.01, train_sampling_strategy="sequential")
    data = [{"input_ids": torch.tensor(ids), "labels": int(label)} for ids, label in pairs]
    trainer = Trainer(model=model, args=arguments, train_dataset=data)
    decaying = trainer.get_decay_parameter_names(model)
    groups = [
        {"params": [p for n, p in model.named_parameters() if (n in decaying) == decays], "weight_decay": decay}
        for decays, decay in ((True, 0.01), (False, 0.0))
    ]
    optimizer = ChildTuningAdamW(groups, lr=1e-3, eps=1e-8, mode=TASK_DRIVEN)
    schedule = get_linear_schedule_with_warmup(optimizer, 0, 3)
    return Trainer(model=model, args=arguments, train_dataset=data, optimizers=(optimizer, schedule))


def test_a_trainers_masks_are_the_references(tmp_path: Path) -> None:
    theirs = np.load(golden("sofa/runs") / "trainer_ctD.npz")
    masks = calculate_fisher_of_trainer(recorded_trainer(recorded_model(), tmp_path), 0.3)
    about = json.loads((golden("sofa/runs") / "trainer_ChildTuning-D.json").read_text())
    assert list(masks) == about["masked_params"]
    for key in (key for key in theirs.files if key.startswith("mask/")):
        np.testing.assert_array_equal(masks[key[5:]].numpy(), theirs[key])


def test_a_trainer_with_the_references_optimizer_ends_where_the_reference_ends(tmp_path: Path) -> None:
    theirs, model = np.load(golden("sofa/runs") / "trainer_ctD.npz"), recorded_model()
    about = json.loads((golden("sofa/runs") / "trainer_ChildTuning-D.json").read_text())
    trainer = recorded_trainer(model, tmp_path)
    masks = calculate_fisher_of_trainer(trainer, 0.3)
    trainer.optimizer.set_gradient_mask(masks_by_parameter(model, masks))
    assert trainer.train().training_loss == pytest.approx(about["train_loss"], abs=FORWARD)
    for key in (key for key in theirs.files if key.startswith("final/")):
        ours = model.get_parameter(key[6:]).detach().numpy()
        np.testing.assert_allclose(ours, theirs[key], rtol=0, atol=FORWARD)


# The pieces


def pair(dtype: torch.dtype = torch.float32, device: str = "cpu") -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    parameters = [nn.Parameter(torch.randn(size, generator=generator).to(device, dtype)) for size in (400, 30)]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(device, dtype)
    return parameters


def values(parameters: Iterable[Tensor]) -> list[Tensor]:
    return [parameter.detach().clone() for parameter in parameters]


MAKERS: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1, momentum=0.9),
    "fused": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, fused=True),
    "foreach": lambda parameters: torch.optim.AdamW(parameters, lr=0.1, foreach=True),
    "adafactor": lambda parameters: Adafactor(parameters, lr=0.1, relative_step=False),
}


@pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)
def test_any_optimizer_steps_with_the_masked_gradient(make: Callable[..., torch.optim.Optimizer]) -> None:
    ours, theirs = pair(), pair()
    optimizer = make(ours)
    mask_gradients(optimizer, TaskFreeMask(0.3))
    torch.manual_seed(5)
    optimizer.step()
    torch.manual_seed(5)
    for parameter in theirs:
        parameter.grad *= torch.bernoulli(torch.full_like(parameter, 0.3)) / 0.3
    make(theirs).step()
    assert all(torch.equal(a, b) for a, b in zip(values(ours), values(theirs), strict=True))


def test_f_draws_in_the_order_of_the_parameter_groups() -> None:
    first, second = pair()
    optimizer = torch.optim.SGD([{"params": [second]}, {"params": [first]}], lr=0.1)
    mask_gradients(optimizer, TaskFreeMask(0.5))
    expected = [parameter.grad.clone() for parameter in (second, first)]
    torch.manual_seed(5)
    optimizer.step()
    torch.manual_seed(5)
    for parameter, grad in zip((second, first), expected, strict=True):
        assert torch.equal(parameter.grad, grad * (torch.bernoulli(torch.full_like(grad, 0.5)) / 0.5))


def test_d_masks_without_scaling_and_leaves_other_parameters_whole() -> None:
    masked, whole = pair()
    mask = torch.arange(400) % 3 == 0
    optimizer = torch.optim.SGD([masked, whole], lr=0.1)
    before = [masked.grad.clone(), whole.grad.clone()]
    mask_gradients(optimizer, TaskDrivenMask({masked: mask}))
    optimizer.step()
    assert torch.equal(masked.grad, before[0] * mask)
    assert torch.equal(whole.grad, before[1])


def test_a_parameter_without_a_gradient_draws_nothing() -> None:
    first, second = pair()
    first.grad = None
    torch.manual_seed(5)
    before = second.grad.clone()
    TaskFreeMask(0.5)([first, second])
    torch.manual_seed(5)
    assert torch.equal(second.grad, before * (torch.bernoulli(torch.full_like(before, 0.5)) / 0.5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_low_precision_gradient_gets_the_masks_of_a_full_one(dtype: torch.dtype) -> None:
    low, full = pair(dtype), pair()
    for parameters in (low, full):
        torch.manual_seed(5)
        TaskFreeMask(0.3)(parameters)
    assert all(torch.equal(a.grad != 0, b.grad != 0) for a, b in zip(low, full, strict=True))


def test_removing_the_handle_ends_the_masking() -> None:
    parameters = pair()
    optimizer = torch.optim.SGD(parameters, lr=0.1)
    mask_gradients(optimizer, TaskFreeMask(0.3)).remove()
    before = [parameter.grad.clone() for parameter in parameters]
    optimizer.step()
    assert all(torch.equal(p.grad, grad) for p, grad in zip(parameters, before, strict=True))


def test_masking_twice_is_refused() -> None:
    optimizer = torch.optim.SGD(pair(), lr=0.1)
    mask_gradients(optimizer, TaskFreeMask(0.3))
    with pytest.raises(RuntimeError, match="masks its gradients already"):
        mask_gradients(optimizer, TaskFreeMask(0.3))


def test_the_references_optimizer_is_not_masked_a_second_time() -> None:
    with pytest.raises(RuntimeError, match="masks its gradients already"):
        mask_gradients(ChildTuningAdamW(pair()), TaskFreeMask(0.3))


def test_a_mask_whose_parameter_the_optimizer_lacks_is_refused() -> None:
    first, second = pair()
    with pytest.raises(RuntimeError, match="1 masked parameters are not in SGD"):
        mask_gradients(torch.optim.SGD([first], lr=0.1), TaskDrivenMask({second: torch.ones(30) > 0}))


def test_a_closure_is_refused_because_its_gradients_come_after_the_masking() -> None:
    optimizer = torch.optim.SGD(pair(), lr=0.1)
    mask_gradients(optimizer, TaskFreeMask(0.3))
    with pytest.raises(RuntimeError, match="closure"):
        optimizer.step(lambda: 0.0)


def test_the_references_optimizer_masks_what_a_closure_computes() -> None:
    parameter = nn.Parameter(torch.ones(1000))
    optimizer = ChildTuningAdamW([parameter], reserve_p=0.5)

    def closure() -> float:
        loss = (parameter * 3).sum()
        loss.backward()
        return loss.item()

    assert optimizer.step(closure) == 3000.0
    assert parameter.grad.unique().tolist() == [0.0, 6.0]


@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN, None])
def test_a_sparse_gradient_is_refused_by_the_references_optimizer(mode: str | None) -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = ChildTuningAdamW(table.parameters(), mode=mode)
    optimizer.set_gradient_mask({})
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_a_sparse_gradient_is_refused_before_another_optimizers_step() -> None:
    table = nn.Embedding(5, 3, sparse=True)
    optimizer = torch.optim.SparseAdam(table.parameters())
    mask_gradients(optimizer, TaskFreeMask(0.3))
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse"):
        optimizer.step()


def test_d_without_masks_says_what_to_call() -> None:
    optimizer = ChildTuningAdamW(pair(), mode=TASK_DRIVEN)
    with pytest.raises(RuntimeError, match="set_gradient_mask"):
        optimizer.step()


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="ChildTuning-F or ChildTuning-D"):
        ChildTuningAdamW(pair(), mode="D")


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="reserve_p"):
        ChildTuningAdamW(pair(), reserve_p=share)


def test_the_references_optimizer_goes_on_from_its_state_dict() -> None:
    ours, theirs = pair(), pair()
    a, b = ChildTuningAdamW(ours, mode=None, lr=0.1), ChildTuningAdamW(theirs, mode=None, lr=0.1)
    a.step()
    for parameter, value in zip(theirs, values(ours), strict=True):
        parameter.data.copy_(value)
    b.load_state_dict(copy.deepcopy(a.state_dict()))
    a.step()
    b.step()
    assert all(torch.equal(x, y) for x, y in zip(values(ours), values(theirs), strict=True))


def test_masks_that_fit_no_parameter_are_refused() -> None:
    with pytest.raises(ValueError, match=r"decoder\.weight"):
        masks_by_parameter(nn.Linear(2, 2), {"decoder.weight": torch.ones(2, 2) > 0})


# Fisher information


def scattered() -> list[Tensor]:
    generator = torch.Generator().manual_seed(9)
    wide = torch.rand(1001, generator=generator) ** 40
    tied = torch.randint(0, 4, (40, 7), generator=generator) / 3
    return [wide, tied, torch.zeros(5), torch.tensor([1e-45, 3e38, 0.5])]


def test_an_order_statistic_is_that_of_the_sorted_values() -> None:
    tensors = scattered()
    ordered = np.sort(np.concatenate([values.numpy().ravel() for values in tensors]))
    assert [order_statistic(tensors, rank) for rank in range(0, len(ordered), 16)] == ordered[::16].tolist()


@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.5, 1.0])
def test_the_threshold_is_numpys_percentile(share: float) -> None:
    tensors = scattered()
    # numpy 2 rounds the fraction itself to float32 where the values are, so it gets them as float64
    together = np.concatenate([values.numpy().ravel() for values in tensors]).astype(np.float64)
    assert fisher_threshold(tensors, share) == pytest.approx(np.percentile(together, (1 - share) * 100), rel=1e-7)


def test_information_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        fisher_threshold([torch.tensor([1.0, float("nan")])], 0.3)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(ValueError, match='"layer" in its name'):
        calculate_fisher(nn.Linear(6, 3), batches(), loss_of, 0.3)


def test_batches_without_a_length_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        calculate_fisher(perceptron(), iter(batches()), loss_of, 0.3)


def test_computing_masks_leaves_the_models_mode_and_no_gradients() -> None:
    model = perceptron().eval()
    calculate_fisher(model, batches(), loss_of, 0.3)
    assert not model.training
    assert all(parameter.grad is None for parameter in model.parameters())


def test_each_tensor_is_clipped_on_its_own() -> None:
    fisher = fisher_information(perceptron(), batches()[:1], loss_of, 0.05)
    norms = [float(fisher[key].sum().sqrt()) for key in ("layer0.weight", "layer1.weight")]
    assert norms == pytest.approx([0.05, 0.05], abs=FORWARD)


def test_frozen_layers_get_no_mask() -> None:
    model = perceptron()
    model.layer0.requires_grad_(False)
    assert list(calculate_fisher(model, batches(), loss_of, 0.3)) == ["layer1.weight", "layer1.bias"]


# Every optimizer of the process


def test_the_global_form_masks_an_optimizer_made_later_until_it_ends() -> None:
    with apply_child_tuning(reserve_p=0.5):
        inside = pair()
        before = inside[0].grad.clone()
        torch.manual_seed(5)
        torch.optim.AdamW(inside, lr=0.1).step()
        torch.manual_seed(5)
        assert torch.equal(inside[0].grad, before * (torch.bernoulli(torch.full_like(before, 0.5)) / 0.5))
    outside = pair()
    before = outside[0].grad.clone()
    torch.optim.AdamW(outside, lr=0.1).step()
    assert torch.equal(outside[0].grad, before)


def test_a_second_global_call_replaces_the_first() -> None:
    parameters = pair()
    parameters[0].grad = torch.ones(400)
    with apply_child_tuning(reserve_p=0.2), apply_child_tuning(reserve_p=0.5):
        torch.optim.SGD(parameters, lr=0.1).step()
    assert parameters[0].grad.unique().tolist() == [0.0, 2.0]


def test_the_global_form_leaves_optimizers_alone_that_mask_by_themselves() -> None:
    ours, references = pair(), pair()
    optimizer = torch.optim.SGD(ours, lr=0.1)
    mask_gradients(optimizer, TaskDrivenMask({}))
    before = ours[0].grad.clone()
    with apply_child_tuning(reserve_p=0.5):
        optimizer.step()
        ChildTuningAdamW(references, mode=None).step()
    assert torch.equal(ours[0].grad, before)
    assert torch.equal(references[0].grad, before)


def test_the_global_form_masks_once_under_accelerate() -> None:
    parameters = pair()
    parameters[0].grad = torch.ones(400)
    optimizer = Accelerator(cpu=True).prepare(torch.optim.AdamW(parameters, lr=0.1))
    with apply_child_tuning(reserve_p=0.5):
        optimizer.step()
    assert parameters[0].grad.unique().tolist() == [0.0, 2.0]


def test_the_global_form_refuses_d() -> None:
    with pytest.raises(RuntimeError, match="apply_child_tuning_to_trainer"):
        apply_child_tuning(TASK_DRIVEN)


# On the Trainer

WORDS, LENGTH = 20, 6


def settings(folder: Path, **changes: Any) -> TrainingArguments:
    given = {
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 4,
        "use_cpu": True,
        "report_to": [],
        "disable_tqdm": True,
        "save_strategy": "no",
        "logging_strategy": "no",
    }
    return TrainingArguments(output_dir=str(folder), **given | changes)


def tiny_bert(dropout: float = 0.1) -> BertForSequenceClassification:
    torch.manual_seed(0)
    sizes = {"vocab_size": WORDS, "hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": LENGTH}
    drop = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForSequenceClassification(BertConfig(**sizes, **drop, num_hidden_layers=2, num_attention_heads=2))


def rows(count: int = 16) -> list[dict[str, Any]]:
    """Sentences whose label is whether the first word is in the upper half of the vocabulary."""
    ids = torch.randint(0, WORDS, (count, LENGTH), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": row, "labels": int(row[0] >= WORDS // 2), "idx": number} for number, row in enumerate(ids)]


def tiny_trainer(folder: Path, **changes: Any) -> Trainer:
    return Trainer(model=tiny_bert(), args=settings(folder, **changes), train_dataset=rows())


def weights(trainer: Trainer) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in a)


class Watch(TrainerCallback):
    """Keep each step's gradients as the optimizer gets them (clipped) and as it leaves them."""

    def __init__(self) -> None:
        self.clipped: list[list[Tensor]] = []
        self.masked: list[list[Tensor]] = []

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.clipped.append([p.grad.clone() for p in kwargs["model"].parameters()])

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.masked.append([p.grad.clone() for p in kwargs["model"].parameters()])


def is_masked(before: list[Tensor], after: list[Tensor], scale: float) -> bool:
    pairs = list(zip(before, after, strict=True))
    some_closed = any(bool(((a == 0) & (b != 0)).any()) for b, a in pairs)
    return some_closed and all(torch.equal(a, torch.where(a != 0, b * scale, 0)) for b, a in pairs)


class Stop(TrainerCallback):
    """Break off as a crash would, after the checkpoint of a step is written."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


def learned(trainer: Trainer) -> tuple[float, float]:
    def loss() -> float:
        return float(trainer.evaluate(trainer.train_dataset)["eval_loss"])

    before = loss()
    trainer.train()
    return before, loss()


@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN])
def test_a_trainer_learns(mode: str, tmp_path: Path) -> None:
    arguments = settings(tmp_path, num_train_epochs=20, learning_rate=1e-2)
    trainer = Trainer(model=tiny_bert(0.0), args=arguments, train_dataset=rows())
    apply_child_tuning_to_trainer(trainer, mode, 0.3)
    before, after = learned(trainer)
    assert after < before / 2


@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN])
def test_a_child_tuned_model_is_another_than_the_plain_one(mode: str, tmp_path: Path) -> None:
    plain, ours = tiny_trainer(tmp_path, num_train_epochs=1), tiny_trainer(tmp_path, num_train_epochs=1)
    apply_child_tuning_to_trainer(ours, mode, 0.3)
    plain.train()
    torch.manual_seed(42)
    ours.train()
    assert not same(weights(plain), weights(ours))


def test_d_leaves_what_its_masks_close_where_it_was(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_train_epochs=2)
    masks = calculate_fisher_of_trainer(trainer, 0.3)
    apply_child_tuning_to_trainer(trainer, TASK_DRIVEN, masks=masks)
    before = weights(trainer)
    trainer.train()
    after = weights(trainer)
    assert {key for key in masks if not torch.equal(after[key][~masks[key]], before[key][~masks[key]])} == set()
    assert any(not torch.equal(after[key], before[key]) for key in masks)


def test_d_keeps_its_share_of_the_layers(tmp_path: Path) -> None:
    masks = calculate_fisher_of_trainer(tiny_trainer(tmp_path), 0.3)
    kept = sum(int(mask.sum()) for mask in masks.values()) / sum(mask.numel() for mask in masks.values())
    assert kept == pytest.approx(0.3, abs=1e-3)


def test_the_gradient_is_clipped_before_it_is_masked(tmp_path: Path) -> None:
    trainer, watch = tiny_trainer(tmp_path, num_train_epochs=1, max_grad_norm=0.01), Watch()
    trainer.add_callback(watch)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.25)
    trainer.train()
    for clipped, masked in zip(watch.clipped, watch.masked, strict=True):
        assert float(torch.cat([grad.ravel() for grad in clipped]).norm()) == pytest.approx(0.01, rel=1e-3)
        assert is_masked(clipped, masked, 4)


def test_accumulated_gradients_are_masked_at_real_steps_only(tmp_path: Path) -> None:
    trainer, watch = tiny_trainer(tmp_path, num_train_epochs=1, gradient_accumulation_steps=2), Watch()
    trainer.add_callback(watch)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.25)
    trainer.train()
    assert len(watch.masked) == 2
    for clipped, masked in zip(watch.clipped, watch.masked, strict=True):
        assert is_masked(clipped, masked, 4)


def test_a_plain_accelerate_loop_masks_at_real_steps_only() -> None:
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model, optimizer = accelerator.prepare(perceptron(), torch.optim.AdamW(perceptron().parameters(), lr=0.1))
    calls: list[int] = []
    mask_gradients(optimizer, lambda parameters: calls.append(len(list(parameters))))
    for batch in batches() + batches()[:1]:
        with accelerator.accumulate(model):
            accelerator.backward(loss_of(model, batch))
            optimizer.step()
            optimizer.zero_grad()
    assert calls == [8, 8]


@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN])
def test_a_training_that_was_broken_off_ends_where_an_undisturbed_one_ends(mode: str, tmp_path: Path) -> None:
    changes = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 5}
    whole = tiny_trainer(tmp_path / "whole", **changes)
    apply_child_tuning_to_trainer(whole, mode, 0.3)
    whole.train()
    broken = tiny_trainer(tmp_path / "broken", **changes)
    apply_child_tuning_to_trainer(broken, mode, 0.3)
    broken.add_callback(Stop(5))
    with pytest.raises(KeyboardInterrupt):
        broken.train()
    resumed = tiny_trainer(tmp_path / "broken", **changes)
    apply_child_tuning_to_trainer(resumed, mode, 0.3)
    resumed.train(resume_from_checkpoint=True)
    assert same(weights(whole), weights(resumed))


def test_resuming_takes_the_checkpoints_masks_and_not_those_computed_anew(tmp_path: Path) -> None:
    changes = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 5}
    first = tiny_trainer(tmp_path, **changes)
    masks = calculate_fisher_of_trainer(first, 0.3)
    apply_child_tuning_to_trainer(first, TASK_DRIVEN, masks=masks)
    first.train()
    resumed = tiny_trainer(tmp_path, **changes)
    apply_child_tuning_to_trainer(resumed, TASK_DRIVEN, masks={key: ~mask for key, mask in masks.items()})
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    assert same(weights(first), weights(resumed))


def test_a_checkpoint_holds_the_masks(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, num_train_epochs=1, save_strategy="epoch")
    masks = calculate_fisher_of_trainer(trainer, 0.3)
    apply_child_tuning_to_trainer(trainer, TASK_DRIVEN, masks=masks)
    trainer.train()
    assert same(masks, load_masks(tmp_path / "checkpoint-4"))


def test_resuming_from_a_checkpoint_without_masks_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    changes = {"num_train_epochs": 2, "save_strategy": "steps", "save_steps": 4}
    first, resumed = tiny_trainer(tmp_path, **changes), tiny_trainer(tmp_path, **changes)
    apply_child_tuning_to_trainer(first, TASK_DRIVEN, 0.3)
    first.train()
    (tmp_path / "checkpoint-4" / MASKS_FILE).unlink()
    apply_child_tuning_to_trainer(resumed, TASK_DRIVEN, 0.3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert "holds no Child-Tuning masks" in caplog.text


def test_a_second_application_replaces_the_first(tmp_path: Path) -> None:
    trainer, watch = tiny_trainer(tmp_path, max_steps=1), Watch()
    trainer.add_callback(watch)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.1)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.5)
    trainer.train()
    kept = torch.cat([grad.ravel() for grad in watch.masked[0]]) != 0
    given = torch.cat([grad.ravel() for grad in watch.clipped[0]]) != 0
    assert float(kept.sum() / given.sum()) == pytest.approx(0.5, abs=0.05)


def test_a_trainer_trains_twice(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=2)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.3)
    trainer.train()
    assert trainer.train().global_step == 2


def test_the_optimizer_is_plain_again_after_training(tmp_path: Path) -> None:
    trainer = tiny_trainer(tmp_path, max_steps=1)
    apply_child_tuning_to_trainer(trainer, TASK_FREE, 0.3)
    trainer.train()
    for parameter in trainer.model.parameters():
        parameter.grad = torch.ones_like(parameter)
    trainer.optimizer.step()
    assert all(bool((parameter.grad == 1).all()) for parameter in trainer.model.parameters())


@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN])
def test_a_bfloat16_model_trains_with_finite_weights(mode: str, tmp_path: Path) -> None:
    model = tiny_bert().to(torch.bfloat16)
    trainer = Trainer(model=model, args=settings(tmp_path, max_steps=3), train_dataset=rows())
    apply_child_tuning_to_trainer(trainer, mode, 0.3)
    trainer.train()
    assert all(bool(value.isfinite().all()) for value in model.parameters())


def test_mixed_precision_masks_the_unscaled_gradient(tmp_path: Path) -> None:
    trainer, watch = tiny_trainer(tmp_path, max_steps=2, bf16=True), Watch()
    trainer.add_callback(watch)
    apply_child_tuning_to_trainer(trainer, TASK_DRIVEN, 0.3)
    trainer.train()
    assert all(grad.dtype is torch.float32 for grad in watch.masked[0])


def test_an_unknown_mode_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="unknown Child-Tuning mode 'F'"):
        apply_child_tuning_to_trainer(tiny_trainer(tmp_path), "F")


# Several processes, and a GPU


def replica(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    torch.manual_seed(rank)
    parameters = pair()
    TaskFreeMask(0.5)(parameters)
    TaskFreeMask(0.5)(parameters)
    fisher = fisher_information(perceptron(), batches()[rank : rank + 1], loss_of)
    torch.save([[p.grad for p in parameters], fisher], f"{folder}/rank{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def replicas(tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    folder = tmp_path_factory.mktemp("replicas")
    torch.multiprocessing.spawn(replica, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"rank{rank}.pt") for rank in (0, 1)]


@pytest.mark.slow
def test_processes_with_different_random_states_draw_the_same_masks(replicas: list[Any]) -> None:
    (first, _), (second, _) = replicas
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.slow
def test_processes_share_the_mean_of_their_fisher_information(replicas: list[Any]) -> None:
    (_, first), (_, second) = replicas
    together = fisher_information(perceptron(), batches()[:2], loss_of)
    assert same(first, second)
    assert all(torch.allclose(first[key], together[key], rtol=1e-6, atol=0) for key in together)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_on_a_gpu_the_masks_come_from_its_own_random_state(dtype: torch.dtype) -> None:
    first, second = pair(dtype, "cuda"), pair(dtype, "cuda")
    for parameters in (first, second):
        torch.cuda.manual_seed(5)
        TaskFreeMask(0.3)(parameters)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(first, second, strict=True))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_on_a_gpu_the_threshold_is_the_cpus() -> None:
    assert fisher_threshold([values.cuda() for values in scattered()], 0.3) == fisher_threshold(scattered(), 0.3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", [TASK_FREE, TASK_DRIVEN])
def test_a_training_on_a_gpu_in_bfloat16_resumes_where_an_undisturbed_one_ends(mode: str, tmp_path: Path) -> None:
    changes = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 5, "use_cpu": False, "bf16": True}
    whole, resumed = tiny_trainer(tmp_path, **changes), tiny_trainer(tmp_path, **changes)
    apply_child_tuning_to_trainer(whole, mode, 0.3)
    whole.train()
    apply_child_tuning_to_trainer(resumed, mode, 0.3)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-5"))
    ours, theirs = weights(whole), weights(resumed)
    assert all(torch.allclose(ours[key], theirs[key], atol=1e-5) for key in ours)
