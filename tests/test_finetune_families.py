"""The originals' archives through the real commands: pulled, converted, fine-tuned and scored, with the network off."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from tests.support.goldens import golden
from tests.support.inprocess import InProcess

pytestmark = [pytest.mark.slow, pytest.mark.train]

CHARACTERS = "今天天气很好我们去公园散步吧北京上海问题中文模型发布"
QUICK = ("--set", "learning_rate=3e-3", "--set", "batch_size=8", "--set", "early_stopping=0", "--set", "epochs=12")
CASES = {
    "chinese-palm-base": ("text-to-text", "PalmForConditionalGeneration", ()),
    "veco-large": ("text-to-text", "VecoForConditionalGeneration", ("--model-set", "decoder_start_token_id=422")),
    "english_sbert-large-std-512": ("sst2", "SbertForSequenceClassification", ("--model-set", "adv_grad_factor=null")),
    "xtreme-released-veco": ("sst2", "VecoForSequenceClassification", ()),
}


def write_rows(folder: Path, task: str) -> Path:
    """Write a few rows to be learnt by heart: which word was said, or the first two characters of a text."""
    drawn = random.Random(0)
    folder.mkdir()
    rows: list[dict[str, object]] = []
    for number in range(32):
        if task == "sst2":
            word = ("great", "bad")[number % 2]
            rows.append({"sentence": f"the movie was {word} and the city", "label": number % 2})
        else:
            text = "".join(drawn.choice(CHARACTERS) for _ in range(6))
            rows.append({"source": text, "target": text[:2]})
    for split in ("train", "validation"):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize("name", CASES)
def test_an_original_is_fine_tuned_and_scored_by_the_commands(name: str, tmp_path: Path) -> None:
    task, made, changes = CASES[name]
    data = write_rows(tmp_path / "rows", task)
    state = {"XDG_STATE_HOME": str(tmp_path / "state"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    hubcache = InProcess(tmp_path, **state)
    pulled = hubcache("pull", golden(f"sofa/tarballs/{name}.tar.gz"), "--as", "org/original")
    assert pulled.code == 0, pulled.err
    limits = ("--set", "max_length=16", "--set", "target_length=8")
    trained = hubcache(
        "finetune",
        "org/original",
        "--task",
        task,
        "--data",
        data,
        "--output",
        "me/tuned",
        "--json",
        *QUICK,
        *limits,
        *changes,
    )
    assert trained.code == 0, trained.err
    snapshot = Path(trained.facts["path"])
    record = json.loads((snapshot / "run.json").read_text())
    losses = [row["loss"] for row in record["history"] if "loss" in row]
    assert json.loads((snapshot / "config.json").read_text())["architectures"] == [made]
    assert min(losses[-3:]) < 0.8 * losses[0]
    scored = hubcache(
        "evaluate", "me/tuned", "--task", task, "--data", data, "--split", "validation", *limits, "--json"
    )
    assert scored.code == 0, scored.err
    assert scored.facts["metrics"]["validation"] == pytest.approx(trained.facts["metrics"]["validation"], abs=1e-6)
