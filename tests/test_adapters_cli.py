"""`hubcache finetune --adapter`, `evaluate` and `export --merge` as people call them: offline, on a model made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.commandline import Ran
from tests.support.inprocess import InProcess
from tests.test_cli_finetune import MODEL, Home, make_home

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.train]

FAST = ("--set", "learning_rate=1e-2", "--set", "batch_size=8")
TASK = ("--task", "text-classification")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return make_home(tmp_path_factory.mktemp("adapters"), InProcess)


@pytest.fixture(scope="module")
def lora(home: Home) -> Ran:
    pytest.importorskip("peft")
    return tuned(home, "lora", "me/lora")


@pytest.fixture(scope="module")
def houlsby(home: Home) -> Ran:
    return tuned(home, "houlsby", "me/houlsby")


def tuned(home: Home, kind: str, output: str) -> Ran:
    ran = home.finetune("--adapter", kind, *FAST, "--output", output, OMP_NUM_THREADS="1")
    assert ran.code == 0, ran.err
    return ran


def scores(home: Home, model: str, *more: str) -> dict[str, float]:
    ran = home.hubcache("evaluate", model, *TASK, "--data", home.data, "--json", *more, timeout=200)
    assert ran.code == 0, ran.err
    found: dict[str, float] = json.loads(ran.out)["metrics"]["test"]
    return found


def test_the_repo_of_an_adapter_holds_it_and_its_head_alone(home: Home, houlsby: Ran) -> None:
    folder = Path(json.loads(houlsby.out)["path"])
    weights = sorted(path.name for path in folder.glob("*.safetensors"))
    base = Path(home.hubcache("path", MODEL).out.strip())
    assert weights == ["adapter_model.safetensors"]
    told = json.loads((folder / "adapter_config.json").read_text())["hubcache"]["base"]
    assert (told["reference"], told["commit"]) == (MODEL, base.name)


def test_evaluate_puts_an_adapter_over_its_cached_base(home: Home, houlsby: Ran) -> None:
    said = json.loads(houlsby.out)["metrics"]["test"]
    assert scores(home, "me/houlsby") == pytest.approx(said, abs=1e-6)


def test_a_merged_lora_scores_as_the_unmerged_one(home: Home, lora: Ran) -> None:
    ran = home.hubcache("export", "me/lora", "--merge", "--output", "me/merged", timeout=200)
    assert ran.code == 0, ran.err
    assert (Path(ran.out.strip()) / "model.safetensors").is_file()
    assert scores(home, "me/merged") == pytest.approx(scores(home, "me/lora"), abs=1e-5)


def test_a_bottleneck_adapter_is_not_merged_and_the_reason_is_said(home: Home, houlsby: Ran) -> None:
    ran = home.hubcache("export", "me/houlsby", "--merge", "--output", "me/no", timeout=200)
    assert ran.code == 2
    assert "non-linearity" in ran.err


def test_an_adapter_is_not_trained_further_as_if_it_were_a_model(home: Home, houlsby: Ran) -> None:
    ran = home.hubcache("finetune", "me/houlsby", *TASK, "--data", home.data, timeout=200)
    assert ran.code == 2
    assert "is an adapter" in ran.err
