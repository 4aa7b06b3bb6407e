"""Fine-tuning on a GPU; these tests run where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hubcache.train.finetune import finetune, make_trainer, prepare
from tests.support.finetuning import finish, sentiment_request, start
from tests.support.training import tiny_bert
from tests.test_finetune_resume import kill_at, tiny_without_dropout

pytestmark = [
    pytest.mark.train,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("model"))


def test_steps_replayed_as_graphs_learn_what_steps_told_one_by_one_do(model: Path, tmp_path: Path) -> None:
    still = tiny_without_dropout(model, tmp_path / "still")
    for name in ("on", "off"):
        pairs = ("epochs=1", "precision=fp32", "optimizer=sgd", "lr=0.1", "pad_to=16", f"cuda_graphs={name}")
        (tmp_path / name).mkdir()
        finetune(sentiment_request(still, tmp_path / name, pairs))
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("on", "off"))
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)


def test_steps_are_replayed_as_graphs_by_default(model: Path, tmp_path: Path) -> None:
    run = prepare(sentiment_request(model, tmp_path, ("epochs=2", "evaluate=no", "save=no")))
    _, trainer, _ = make_trainer(run)
    trainer.train()
    assert trainer.graphs is not None
    assert trainer.graphs.refused == ""
    assert trainer.graphs.recorded >= 2


def test_the_precision_is_bf16_where_the_gpu_has_it(model: Path, tmp_path: Path) -> None:
    run = prepare(sentiment_request(model, tmp_path, ()))
    assert run.place.bf16 is torch.cuda.is_bf16_supported(including_emulation=False)


def test_a_killed_run_goes_on_and_ends(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    kill_at(start(model, output, "epochs=20", "batch=8"), output, 50)
    assert "resumed from checkpoint-" in finish(start(model, output, "epochs=20", "batch=8"))
