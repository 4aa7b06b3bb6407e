"""A recipe's distillation against SparseML's numbers: the loss, its gradient, its window and what may be a teacher."""

from __future__ import annotations

import json
from typing import Any

import pytest

pytest.importorskip("torch")

import torch
from torch import Tensor, nn

from hubcache.errors import BadConfig
from hubcache.train.sparse.distillation import (
    DISABLE,
    SELF,
    RecipeTeacher,
    distance,
    find_teacher,
    is_active,
    kl_distance,
)
from hubcache.train.sparse.recipe import DistillationModifier
from tests.support.goldens import golden

pytestmark = pytest.mark.train
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    return json.loads((golden("sparse") / "distillation.json").read_text())  # type: ignore[no-any-return]  # JSON


class Fixed(nn.Module):  # type: ignore[misc]  # torch is untyped here
    """A model that says the same to everything, and notes what it was asked."""

    def __init__(self, **outputs: Any) -> None:
        super().__init__()
        self.outputs = outputs
        self.weight = nn.Parameter(torch.ones(1))
        self.asked: list[dict[str, Any]] = []

    def forward(self, **inputs: Any) -> dict[str, Any]:
        self.asked.append(inputs)
        return self.outputs


def teacher(definition: DistillationModifier, logits: Any, epoch: float = 0.0) -> RecipeTeacher:
    return RecipeTeacher((definition,), Fixed(logits=torch.tensor(logits)), lambda: epoch)


def test_every_temperature_and_hardness_gives_the_references_loss(told: dict[str, Any]) -> None:
    student, task = torch.tensor(told["student_logits"]), torch.tensor(told["task_loss"])
    for case in told["cases"]:
        definition = DistillationModifier(
            start_epoch=-1.0,
            hardness=case["hardness"],
            temperature=case["temperature"],
            distill_output_keys=("logits",),
        )
        made = teacher(definition, told["teacher_logits"]).loss({"loss": task, "logits": student}, {})
        assert float(made) == pytest.approx(case["total"], abs=1e-7)


def test_every_temperature_gives_the_references_distance(told: dict[str, Any]) -> None:
    student, taught = torch.tensor(told["student_logits"]), torch.tensor(told["teacher_logits"])
    for case in told["cases"]:
        assert float(kl_distance(student, taught, case["temperature"])) == pytest.approx(case["kd"], abs=1e-7)


def test_every_position_of_a_row_counts_the_same(told: dict[str, Any]) -> None:
    case = told["token_level"]
    made = kl_distance(torch.tensor(case["student"]), torch.tensor(case["teacher"]), case["temperature"])
    assert float(made) == pytest.approx(case["kd"], abs=1e-7)


def test_several_keys_are_averaged(told: dict[str, Any]) -> None:
    case = told["two_keys"]
    said, taught = (
        {f"{end}_logits": torch.tensor(case[f"{who}_{end}"]) for end in ("start", "end")}
        for who in ("student", "teacher")
    )
    definition = DistillationModifier(
        start_epoch=-1.0, temperature=case["temperature"], distill_output_keys=tuple(case["keys"])
    )
    assert float(distance(definition, said, taught)) == pytest.approx(case["kd"], abs=1e-7)


def test_without_keys_everything_but_the_loss_is_distilled(told: dict[str, Any]) -> None:
    case = told["two_keys"]
    said, taught = (
        {"loss": torch.tensor(0.5), **{f"{end}_logits": torch.tensor(case[f"{who}_{end}"]) for end in ("start", "end")}}
        for who in ("student", "teacher")
    )
    definition = DistillationModifier(start_epoch=-1.0, temperature=case["temperature"])
    assert float(distance(definition, said, taught)) == pytest.approx(case["kd"], abs=1e-7)


def test_the_gradient_is_the_references(told: dict[str, Any]) -> None:
    student = torch.tensor(told["student_logits"], requires_grad=True)
    kl_distance(student, torch.tensor(told["teacher_logits"]), 2.0).backward()
    assert student.grad is not None
    assert torch.allclose(student.grad, torch.tensor(told["grad_wrt_student_at_T2"]), atol=1e-7)


def test_the_window_holds_the_first_step_at_its_end(told: dict[str, Any]) -> None:
    windows = {"start=-1,end=-1 (recipe default)": (-1.0, -1.0), "start=0,end=-1": (0.0, -1.0), "start=1,end=2": (1, 2)}
    for name, steps in told["active_window_steps_per_epoch_2"].items():
        start, end = windows[name]
        definition = DistillationModifier(start_epoch=float(start), end_epoch=float(end))
        assert [is_active(definition, step["epoch"]) for step in steps] == [step["distilled"] for step in steps]


def test_a_window_that_arithmetic_missed_by_a_rounding_is_met() -> None:
    late, early = 0.1 * 3, 0.3
    assert late > early
    assert is_active(DistillationModifier(start_epoch=late), early)
    assert is_active(DistillationModifier(start_epoch=0.0, end_epoch=early), late)


def test_outside_its_window_no_teacher_is_asked(told: dict[str, Any]) -> None:
    definition = DistillationModifier(start_epoch=1.0, end_epoch=2.0, distill_output_keys=("logits",))
    made = teacher(definition, told["teacher_logits"], epoch=2.5)
    loss = torch.tensor(0.5)
    assert made.loss({"loss": loss, "logits": torch.tensor(told["student_logits"])}, {}) is loss
    assert not made.model.asked


def test_outputs_of_different_kinds_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(BadConfig):
        distance(DistillationModifier(start_epoch=-1.0), {"logits": torch.ones(1, 2)}, torch.ones(1, 2))


def test_outputs_of_different_shapes_are_refused(told: dict[str, Any]) -> None:
    with pytest.raises(BadConfig, match=r"\[3, 3\].*\[3, 2\]"):
        kl_distance(torch.ones(3, 2), torch.ones(3, 3), 1.0)


def test_a_key_that_is_not_there_is_named() -> None:
    definition = DistillationModifier(start_epoch=-1.0, distill_output_keys=("logit",))
    with pytest.raises(BadConfig, match="'logit', which the model does not give"):
        distance(definition, {"logits": torch.ones(1, 2)}, {"logits": torch.ones(1, 2)})


def test_a_module_teaches_in_evaluation_mode_without_gradients() -> None:
    found = find_teacher(nn.Sequential(nn.Dropout(), nn.Linear(2, 2)), nn.Linear(2, 2))
    assert found is not None
    assert not found.training
    assert not any(parameter.requires_grad for parameter in found.parameters())


def test_a_model_that_teaches_itself_is_copied_as_it_is() -> None:
    model = nn.Linear(2, 2)
    found = find_teacher(SELF, model)
    assert isinstance(found, nn.Linear)
    before: Tensor = found.weight.clone()
    with torch.no_grad():
        model.weight.add_(1)
    assert torch.equal(found.weight, before)
    assert model.weight.requires_grad


def test_a_disabled_teacher_is_none() -> None:
    assert find_teacher(DISABLE, nn.Linear(2, 2)) is None


@pytest.mark.parametrize("value", [None, "/some/path"])
def test_a_recipe_that_distils_needs_a_teacher(value: Any) -> None:
    with pytest.raises(BadConfig, match="no teacher"):
        find_teacher(value, nn.Linear(2, 2))


def test_the_teacher_is_given_the_inputs_that_the_recipe_names(told: dict[str, Any]) -> None:
    definition = DistillationModifier(start_epoch=-1.0, teacher_input_keys=("input_ids",))
    made = teacher(definition, told["teacher_logits"])
    outputs = {"loss": torch.tensor(0.5), "logits": torch.tensor(told["student_logits"])}
    made.loss(outputs, {"input_ids": torch.ones(3, 1), "attention_mask": torch.ones(3, 1)})
    assert [list(each) for each in made.model.asked] == [["input_ids"]]


def test_an_input_that_no_batch_has_is_refused(told: dict[str, Any]) -> None:
    definition = DistillationModifier(start_epoch=-1.0, teacher_input_keys=("pixels",))
    made = teacher(definition, told["teacher_logits"])
    with pytest.raises(BadConfig, match="pixels, which no batch has"):
        made.loss({"loss": torch.tensor(0.5), "logits": torch.ones(3, 2)}, {"input_ids": torch.ones(3, 1)})


def test_labels_in_another_order_are_put_into_the_students(told: dict[str, Any]) -> None:
    definition = DistillationModifier(start_epoch=-1.0, hardness=1.0, distill_output_keys=("logits",))
    taught = torch.tensor(told["teacher_logits"])
    turned = RecipeTeacher((definition,), Fixed(logits=taught.flip(-1)), lambda: 0.0, columns=(1, 0))
    assert float(turned.loss({"loss": torch.tensor(0.5), "logits": taught}, {})) == pytest.approx(0, abs=1e-7)
