"""`hubcache finetune --recipe` as processes: killed and gone on with, and two at once."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file

from tests.support.commandline import HUBCACHE
from tests.test_cli_finetune import MODEL, QUICK, Home, processes, run_until

__all__ = ["processes"]

pytestmark = [pytest.mark.train, pytest.mark.slow]

PRUNES = """
modifiers:
  - !EpochRangeModifier {start_epoch: 0, end_epoch: 2}
  - !LearningRateFunctionModifier {start_epoch: 0, end_epoch: 2, lr_func: linear, init_lr: 3.0e-3, final_lr: 0}
  - !GMPruningModifier
      params: ['re:bert.encoder.*weight']
      init_sparsity: __FROM_PARAM__
      final_sparsity: 0.75
      start_epoch: 0.5
      end_epoch: 1
"""
QUANTISES = f"""{PRUNES}
  - !DistillationModifier {{hardness: 0.5, distill_output_keys: [logits]}}
  - !QuantizationModifier
      start_epoch: 0.9
      disable_quantization_observer_epoch: 1.5
      submodules: [bert.encoder]
"""
SAVING = ("--set", "epochs=2", "--set", "save=steps", "--set", "save_steps=10", "--set", "evaluate=no")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def written(folder: Path, text: str) -> str:
    (folder / "recipe.yaml").write_text(text)
    return str(folder / "recipe.yaml")


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(processes: Home, tmp_path: Path) -> None:
    asked = ("--recipe", written(tmp_path, QUANTISES), "--teacher", "self", *SAVING)
    whole = processes.finetune(*asked, "--output", "me/whole", **ONE_THREAD)
    assert whole.code == 0, whole.err
    other = (*asked, "--output", "me/killed", "--set", "log_steps=9")
    command = [
        str(HUBCACHE), "finetune", MODEL, "--task", "text-classification", "--data", str(processes.data), *QUICK, *other
    ]  # fmt: skip
    state = Path(processes.hubcache.environ["XDG_STATE_HOME"])
    for step in (20, 40):  # of 60: while it prunes, and when it rounds
        done = f"hubcache/runs/*/.checkpoints/checkpoint-{step}/complete.json"
        run_until(command, processes.hubcache.environ | ONE_THREAD, state, done)
    again = processes.finetune(*other, **ONE_THREAD)
    assert again.code == 0, again.err
    assert "resumed from checkpoint-" in again.err
    weights = [Path(ran.facts["path"], "model.safetensors").read_bytes() for ran in (whole, again)]
    assert weights[0] == weights[1]


def test_two_processes_prune_as_the_recipe_says(processes: Home, tmp_path: Path) -> None:
    ran = processes.finetune("--recipe", written(tmp_path, PRUNES), "--nproc", "2", "--output", "me/two")
    assert ran.code == 0, ran.err[-3000:]
    state = load_file(Path(ran.facts["path"], "model.safetensors"))
    weights = {name: one for name, one in state.items() if ".encoder." in name and one.dim() > 1}
    assert {round(float((one == 0).float().mean()), 3) for one in weights.values()} == {0.75}


def test_several_processes_refuse_a_recipe_that_quantises(processes: Home, tmp_path: Path) -> None:
    asked = ("--recipe", written(tmp_path, QUANTISES), "--teacher", "self", "--nproc", "2", "--output", "me/two")
    ran = processes.finetune(*asked)
    assert ran.code != 0
    assert "a recipe that quantises trains in one process" in ran.err
