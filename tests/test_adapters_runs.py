"""Fine-tuning runs that train an adapter: killed and resumed, on text-to-text models, merged, and loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("peft")

from safetensors.torch import load_file  # noqa: E402
from transformers import T5ForConditionalGeneration  # noqa: E402

from hubcache.errors import UsageError  # noqa: E402
from hubcache.train.adapters.merging import write_merged  # noqa: E402
from hubcache.train.adapters.tuning import load_adapted  # noqa: E402
from hubcache.train.finetune import FinetuneRequest, finetune  # noqa: E402
from hubcache.train.record import RunRecord  # noqa: E402
from hubcache.train.settings import TrainSettings  # noqa: E402
from hubcache.train.tasks import load_task  # noqa: E402
from tests.support.finetuning import finish, sentiment_request, start  # noqa: E402
from tests.support.training import rows_of, tiny_bert, tiny_t5  # noqa: E402
from tests.test_finetune_resume import kill_at  # noqa: E402

pytestmark = [pytest.mark.train, pytest.mark.slow]
torch.set_num_threads(1)

TASK = "klue_tc_gen"
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_t5(tmp_path_factory.mktemp("t5"))


@pytest.fixture(scope="module")
def tuned(t5: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Train an adapter of a kind on a T5 that writes headlines' topics, once; return its folder."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "out"
            splits = {split: rows_of("klue_ynat", split, most) for split, most in (("train", 48), ("validation", 16))}
            settings = TrainSettings(epochs=1, learning_rate=1e-2, batch_size=8, adapter=kind, max_length=32)
            finetune(FinetuneRequest(t5, load_task(TASK), splits, made[kind], settings))
        return made[kind]

    return run


@torch.no_grad()
def said(model: Any) -> Any:
    ids = torch.arange(3, 15).reshape(2, 6)
    return model.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), labels=ids).logits


@pytest.mark.parametrize("kind", ["lora", "pfeiffer"])
def test_a_killed_adapter_run_ends_with_the_bits_of_an_undisturbed_one(bert: Path, tmp_path: Path, kind: str) -> None:
    settings = ("epochs=4", "batch=8", f"adapter={kind}")
    finish(start(bert, tmp_path / "whole", *settings))
    kill_at(start(bert, tmp_path / "killed", *settings), tmp_path / "killed", 50)
    printed = finish(start(bert, tmp_path / "killed", *settings))
    assert "resumed from checkpoint-" in printed
    assert (tmp_path / "killed" / WEIGHTS).read_bytes() == (tmp_path / "whole" / WEIGHTS).read_bytes()


@pytest.mark.parametrize("kind", ["lora", "pfeiffer", "prompt"])
def test_an_adapter_of_a_text_to_text_t5_is_trained_and_loaded_over_its_base(tuned: Any, t5: Path, kind: str) -> None:
    model = load_adapted(tuned(kind), t5, load_task(TASK)).model
    untouched = T5ForConditionalGeneration.from_pretrained(t5, dtype=torch.float32)
    assert not torch.equal(said(model), said(untouched))
    assert "exact_match" in " ".join(RunRecord.read(tuned(kind)).metrics["validation"])


def test_a_merged_lora_of_a_text_to_text_t5_answers_as_the_unmerged_one(tuned: Any, t5: Path, tmp_path: Path) -> None:
    write_merged(tuned("lora"), t5, tmp_path / "merged")
    merged = T5ForConditionalGeneration.from_pretrained(tmp_path / "merged")
    adapted = load_adapted(tuned("lora"), t5, load_task(TASK)).model
    torch.testing.assert_close(said(merged), said(adapted), rtol=0, atol=1e-5)


def test_a_prompt_is_not_merged_and_the_reason_is_said(tuned: Any, t5: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="stands before the input"):
        write_merged(tuned("prompt"), t5, tmp_path / "merged")


@pytest.mark.parametrize(("kind", "shape"), [("prompt", [4, 32]), ("prefix", [4, 2 * 2 * 32])])
def test_a_classifier_s_prompt_is_written_as_its_vectors_and_the_head(
    bert: Path, tmp_path: Path, kind: str, shape: list[int]
) -> None:
    pairs = (f"adapter={kind}", "adapter_rank=4", "max_steps=4", "learning_rate=1e-2")
    finetune(sentiment_request(bert, tmp_path / "out", pairs))
    written = {name: list(value.shape) for name, value in load_file(tmp_path / "out" / WEIGHTS).items()}
    heads = {"base_model.classifier.weight": [2, 32], "base_model.classifier.bias": [2]}
    assert written == {"prompt_embeddings": shape, **heads}


def test_a_prefix_with_activations_computed_twice_is_refused(bert: Path, tmp_path: Path) -> None:
    request = sentiment_request(bert, tmp_path / "out", ("adapter=prefix", "gradient_checkpointing=true"))
    with pytest.raises(UsageError, match="gradient_checkpointing"):
        finetune(request)
