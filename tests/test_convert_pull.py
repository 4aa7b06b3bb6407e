"""The originals' archives, pulled by the real command, load in a fresh process and compute what they computed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.archives import pack
from tests.support.commandline import CommandLine, Ran, files_of
from tests.support.goldens import golden
from tests.support.objectstore import ObjectStore

pytestmark = [pytest.mark.slow, pytest.mark.train]

TOLERANCE = 2e-6
SHORT_NAMES = {
    "structbert.en.large": "StructBERT/english_sbert-large-std-512.tar.gz",
    "structbert.ch.large": "StructBERT/chinese_sbert-large-std-512.tar.gz",
    "palm.ch.base": "PALM/chinese-palm-base.tar.gz",
    "veco.nlu.large": "VECO/NLU/model/xtreme-released-veco.tar.gz",
    "veco.nlg.large": "VECO/NLG/model/veco-large.tar.gz",
}


@dataclass(frozen=True)
class Archive:
    """A published archive: its file below sofa/tarballs, and the numbers that are expected of it."""

    file: str
    family: str
    expected: str


ARCHIVES = {
    "structbert.en.large": Archive("english_sbert-large-std-512", "sbert", "english_sbert-large-std-512"),
    "structbert.ch.large": Archive("chinese_sbert-large-std-512", "sbert", "chinese_sbert-large-std-512"),
    "palm.ch.base": Archive("chinese-palm-base", "palm", "chinese-palm-base"),
    "veco.nlu.large": Archive("xtreme-released-veco", "veco", "xtreme-released-veco"),
    "veco.nlg.large": Archive("veco-large", "veco_nlg", ""),
    "en.nested": Archive("variants/english_sbert-large-std-512.nested", "sbert", "english_sbert-large-std-512"),
    "ch.nested": Archive("variants/chinese_sbert-large-std-512.nested", "sbert", "chinese_sbert-large-std-512"),
    "ch.legacy": Archive("variants/chinese_sbert-large-std-512.legacy", "sbert", "chinese_sbert-large-std-512__legacy"),
    "palm.fp16": Archive("variants/chinese-palm-base.fp16_no_model_type", "palm", "chinese-palm-base__fp16"),
    "veco.xlmr": Archive("variants/xtreme-released-veco.model_type_xlm-roberta", "veco", "xtreme-released-veco__xlmr"),
}

COMPUTE = """
import json, sys
import numpy as np, torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSeq2SeqLM, AutoTokenizer
portable = sys.argv[2] == "portable"
if portable:
    sys.modules["hubcache"] = None  # a machine without it: every import of it fails
else:
    from hubcache.models import TextGenerator
told, options = {}, {"trust_remote_code": True} if portable else {}

def load(auto, name):
    model, info = auto.from_pretrained(name, output_loading_info=True, **options)
    lost = {key: sorted(map(str, keys)) for key, keys in info.items() if keys and key != "error_msgs"}
    return model.eval(), {"class": type(model).__name__, "dtype": str(model.dtype), **lost}

def inputs(golden):
    return {key[3:]: torch.from_numpy(golden[key]) for key in golden.files if key.startswith("in/")}

for row in json.loads(sys.argv[1]):
    golden, out = np.load(row["expected"]), {}
    with torch.no_grad():
        if row["family"] == "sbert":
            model, info = load(AutoModel, row["repo"])
            found = model(**inputs(golden))
            out = {"last_hidden_state": found.last_hidden_state, "pooler_output": found.pooler_output}
            model, info["masked"] = load(AutoModelForMaskedLM, row["repo"])
            out["mlm_logits"] = model(**inputs(golden)).logits
        elif row["family"] == "palm":
            model, info = load(AutoModelForSeq2SeqLM, row["repo"])
            model.config.loss_over_padding = True
            batch = inputs(golden)
            out["loss"], out["logits"] = model(**batch)
            out["prediction_scores"], _, out["sequence_output"] = model(
                **{key: batch[key] for key in batch if key not in ("labels", "dec_loss_mask")}, is_infer=True
            )
            if not portable:
                symbols = {"[CLS]": 101, "[SEP]": 102}
                search = TextGenerator(model, None, symbols, max_length=golden["gen"].shape[1])
                source = [batch[key] for key in ("input_tokens", "token_type_ids", "attention_mask")]
                found = search.translate_batch(source)
                out["gen"] = torch.stack([each[0] for each in found["predictions"]])
                out["gen_scores"] = torch.tensor([float(each[0]) for each in found["scores"]])
        elif row["family"] == "veco":
            model, info = load(AutoModel, row["repo"])
            out["last_hidden_state"] = model(**inputs(golden)).last_hidden_state
        else:
            model, info = load(AutoModelForSeq2SeqLM, row["repo"])
            batch = np.load(row["inputs"])
            source, target = (torch.from_numpy(batch[key]) for key in ("src_tokens", "prev_output_tokens"))
            found = model(input_ids=source, attention_mask=(source != 1).long(), decoder_input_ids=target,
                          decoder_attention_mask=(target != 1).long())
            out["logits"] = found.logits
        np.savez(row["out"], **{key: value.numpy() for key, value in out.items()})
        if row["tokenizer"]:
            case = json.loads(open(row["tokenizer"]).read())
            tokenizer = AutoTokenizer.from_pretrained(row["repo"], **options)
            batch = tokenizer(case["texts"], padding="max_length", max_length=32, truncation=True)
            info["tokens"] = {key: batch[key] for key in case["fast"]}
            pair = tokenizer(*case["pair"])
            info["pair"] = {key: pair[key] for key in case["fast_pair"]}
    told[row["name"]] = info
print(json.dumps(told))
"""


@dataclass(frozen=True)
class World:
    """Every archive in one cache, the server stopped, and what a fresh process computed from each."""

    hubcache: CommandLine
    pulls: dict[str, dict[str, Any]]
    loaded: dict[str, dict[str, Any]]
    computed: dict[str, Any]


def tarball(archive: Archive) -> Path:
    return golden("sofa/tarballs") / f"{archive.file}.tar.gz"


def expected_of(archive: Archive) -> Path:
    place = golden("sofa/tarballs/expected") if archive.expected else golden("sofa/veco_nlg")
    return place / f"{archive.expected or 'outputs'}.npz"


def serve(folder: Path, store: ObjectStore) -> None:
    """Serve every archive under its published path, variants below variants/, and let the catalogue point there."""
    rows = []
    for name, archive in ARCHIVES.items():
        path = SHORT_NAMES.get(name, f"{archive.file}.tar.gz")
        store.put(path, tarball(archive))
        rows.append(f"  {name}: {store.url(path)}\n")
    folder.joinpath("mirrors.yaml").write_text("catalogue:\n" + "".join(rows))


def compute(hubcache: CommandLine, repos: dict[str, str], folder: Path, *, how: str) -> tuple[Any, dict[str, Any]]:
    """Load each repo in one fresh offline process and run it on the golden's inputs."""
    rows = []
    for name, repo in repos.items():
        archive = ARCHIVES[name]
        tokenizer = expected_of(archive).with_suffix(".tokenizer.json")
        rows.append({
            "name": name, "repo": repo, "family": archive.family, "expected": str(expected_of(archive)),
            "inputs": str(golden("sofa/veco_nlg") / "inputs.npz"), "out": str(folder / f"{how}-{name}.npz"),
            "tokenizer": str(tokenizer) if tokenizer.exists() else "",
        })  # fmt: skip
    ran = hubcache.python(COMPUTE, json.dumps(rows), how)
    assert ran.code == 0, ran.err
    return ran.facts, {row["name"]: np.load(row["out"]) for row in rows}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    folder = tmp_path_factory.mktemp("originals")
    with ObjectStore() as store:
        serve(folder, store)
        hubcache = CommandLine(folder, HUBCACHE_MIRRORS=str(folder / "mirrors.yaml"))
        runs = {name: hubcache("pull", "--json", name, "--as", f"org/{name}") for name in ARCHIVES}
    assert [run.err for run in runs.values() if run.code] == []
    loaded, computed = compute(hubcache, {name: f"org/{name}" for name in ARCHIVES}, folder, how="hubcache")
    return World(hubcache, {name: run.facts for name, run in runs.items()}, loaded, computed)


@pytest.fixture(scope="module")
def without_hubcache(tmp_path_factory: pytest.TempPathFactory) -> World:
    """One archive of each family, pulled to carry its own code, and loaded where hubcache cannot be imported."""
    folder = tmp_path_factory.mktemp("portable")
    names = ["structbert.en.large", "palm.ch.base", "veco.nlu.large", "veco.nlg.large"]
    with ObjectStore() as store:
        serve(folder, store)
        hubcache = CommandLine(folder, HUBCACHE_MIRRORS=str(folder / "mirrors.yaml"), HF_HOME=str(folder / "home"))
        runs = {name: hubcache("pull", "--json", name, "--as", f"org/{name}", "--portable") for name in names}
    assert [run.err for run in runs.values() if run.code] == []
    loaded, computed = compute(hubcache, {name: f"org/{name}" for name in names}, folder, how="portable")
    return World(hubcache, {name: run.facts for name, run in runs.items()}, loaded, computed)


def check_outputs(world: World, name: str, *, at_least: int) -> None:
    """Compare every array that was computed with the original's."""
    found, want = world.computed[name], np.load(expected_of(ARCHIVES[name]))
    compared = [key for key in found.files if key in want.files]
    assert len(compared) >= at_least
    for key in compared:
        np.testing.assert_allclose(found[key], want[key], rtol=1e-6, atol=TOLERANCE, err_msg=f"{name}: {key}")


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_computes_what_the_original_computed(world: World, name: str) -> None:
    check_outputs(world, name, at_least={"sbert": 3, "palm": 6, "veco": 1, "veco_nlg": 1}[ARCHIVES[name].family])


@pytest.mark.parametrize("name", ARCHIVES)
def test_no_weight_of_an_archive_is_missing_or_left_over(world: World, name: str) -> None:
    told = world.loaded[name]
    lost = {key for each in (told, told.get("masked", {})) for key in each if key.endswith("keys")}
    if ARCHIVES[name].family == "sbert":
        # The bare encoder has no use for the pre-training heads, nor the masked one for the pooler.
        assert all(key.startswith("cls.") for key in told.get("unexpected_keys", ()))
        assert told.get("missing_keys", []) == told["masked"].get("missing_keys", []) == []
    elif ARCHIVES[name].family == "veco":
        assert all(key.startswith("lm_head.") for key in told.get("unexpected_keys", ()))
    else:
        assert lost == set()


@pytest.mark.parametrize("name", ARCHIVES)
def test_everything_is_computed_in_float32(world: World, name: str) -> None:
    assert world.loaded[name]["dtype"] == "torch.float32"


@pytest.mark.parametrize("name", [name for name in ARCHIVES if ARCHIVES[name].expected])
def test_an_archives_tokenizer_gives_the_originals_ids(world: World, name: str) -> None:
    case = json.loads(expected_of(ARCHIVES[name]).with_suffix(".tokenizer.json").read_text())
    assert (world.loaded[name]["tokens"], world.loaded[name]["pair"]) == (case["fast"], case["fast_pair"])


@pytest.mark.parametrize("name", ["structbert.en.large", "palm.ch.base", "veco.nlu.large", "veco.nlg.large"])
def test_a_portable_snapshot_computes_the_same_where_hubcache_is_not_installed(
    without_hubcache: World, name: str
) -> None:
    check_outputs(without_hubcache, name, at_least=1)


# -- what stands in the cache


@pytest.mark.parametrize("name", ARCHIVES)
def test_what_was_published_is_at_original_and_the_conversion_at_main(world: World, name: str) -> None:
    facts = world.pulls[name]
    refs = [world.hubcache.ref(f"org/{name}", ref) for ref in ("original", "main")]
    assert refs == [facts["original_commit"], facts["commit"]]
    assert refs[0] != refs[1]


@pytest.mark.parametrize("name", ARCHIVES)
def test_the_original_is_byte_for_byte_what_is_in_the_archive(world: World, name: str, tmp_path: Path) -> None:
    import tarfile

    with tarfile.open(tarball(ARCHIVES[name])) as tar:
        members = {Path(each.name).name: tar.extractfile(each) for each in tar if each.isfile()}
        published = {path: file.read() for path, file in members.items() if file is not None}
    original = world.hubcache.snapshot(f"org/{name}", world.pulls[name]["original_commit"])
    assert files_of(original) == published


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_conversion_holds_no_pickle(world: World, name: str) -> None:
    files = files_of(Path(world.pulls[name]["path"]))
    assert "model.safetensors" in files
    assert not {Path(path).suffix for path in files} & {".bin", ".pt", ".pth"}


def test_a_conversion_tells_where_it_comes_from(world: World) -> None:
    ran = world.hubcache("info", "--json", "org/palm.ch.base")
    assert ran.facts["original_commit"] == world.pulls["palm.ch.base"]["original_commit"]


def test_the_converted_cache_verifies(world: World) -> None:
    ran = world.hubcache("verify")
    assert ran.code == 0, ran.out + ran.err


def test_the_same_archive_is_the_same_conversion_on_another_machine(
    world: World, without_hubcache: World, tmp_path: Path
) -> None:
    with ObjectStore({"other.tar.gz": tarball(ARCHIVES["palm.ch.base"])}) as store:
        ran = CommandLine(tmp_path)("pull", "--json", store.url("other.tar.gz"), "--as", "another/palm-name")
    assert ran.facts["commit"] == world.pulls["palm.ch.base"]["commit"]
    assert without_hubcache.pulls["palm.ch.base"]["commit"] != ran.facts["commit"]


# -- pulled again, late, or not at all


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    with ObjectStore({"sofa/chinese-palm-base.tar.gz": tarball(ARCHIVES["palm.ch.base"])}) as found:
        yield found


@pytest.fixture
def hubcache(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


URL = "sofa/chinese-palm-base.tar.gz"
REPO = "127-0-0-1/chinese-palm-base"


def times(hubcache: CommandLine, name: str) -> dict[str, int]:
    return {blob.name: blob.stat().st_mtime_ns for blob in hubcache.blobs(name)}


def test_a_second_pull_transfers_and_converts_nothing(hubcache: CommandLine, store: ObjectStore) -> None:
    first, before = hubcache("pull", "--json", store.url(URL)).facts, times(hubcache, REPO)
    second = hubcache("pull", "--json", store.url(URL)).facts
    assert (second["commit"], second["transferred_size"], times(hubcache, REPO)) == (first["commit"], 0, before)


def test_a_second_pull_does_not_load_torch(hubcache: CommandLine, store: ObjectStore) -> None:
    hubcache("pull", store.url(URL))
    told = hubcache("pull", store.url(URL), PYTHONPROFILEIMPORTTIME="1").err
    assert "hubcache.convert" in told
    assert not [line for line in told.splitlines() if line.rpartition("|")[2].strip() == "torch"]


def test_a_pull_offline_gives_the_conversion(hubcache: CommandLine, store: ObjectStore) -> None:
    first = hubcache("pull", "--json", store.url(URL)).facts
    store.stop()
    second = hubcache("pull", "--json", store.url(URL), HF_HUB_OFFLINE="1")
    assert (second.code, second.facts["path"]) == (0, first["path"])


def test_without_conversion_main_is_what_was_published_and_convert_does_it_later(
    hubcache: CommandLine, store: ObjectStore
) -> None:
    published = hubcache("pull", "--json", "--no-convert", store.url(URL)).facts
    assert (published["original_commit"], hubcache.ref(REPO)) == (None, published["commit"])
    store.stop()
    ran = hubcache("convert", "--json", REPO)
    assert ran.code == 0, ran.err
    assert (ran.facts["original_commit"], ran.facts["commit"]) == (published["commit"], hubcache.ref(REPO))


def test_convert_of_a_conversion_is_the_same_conversion(hubcache: CommandLine, store: ObjectStore) -> None:
    pulled = hubcache("pull", "--json", store.url(URL)).facts
    assert hubcache("convert", "--json", REPO).facts["commit"] == pulled["commit"]


def test_a_portable_conversion_stays_portable_when_it_is_pulled_again(
    hubcache: CommandLine, store: ObjectStore
) -> None:
    portable = hubcache("pull", "--json", "--portable", store.url(URL)).facts
    assert hubcache("pull", "--json", store.url(URL)).facts["commit"] == portable["commit"]


def test_what_was_changed_upstream_is_converted_anew(hubcache: CommandLine, store: ObjectStore) -> None:
    first = hubcache("pull", "--json", store.url(URL)).facts
    store.put(URL, tarball(ARCHIVES["palm.fp16"]))
    second = hubcache("pull", "--json", store.url(URL)).facts
    assert first["commit"] != second["commit"] == hubcache.ref(REPO)


def test_where_torch_is_missing_the_original_is_kept_and_the_way_on_is_told(
    hubcache: CommandLine, store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked/sitecustomize.py").write_text(
        "import importlib.util as u\nfound = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'torch' else found(name, *rest)\n"
    )
    ran = hubcache("pull", "--json", store.url(URL), PYTHONPATH=str(tmp_path / "blocked"))
    assert (ran.code, ran.facts["original_commit"]) == (0, None)
    assert "hubcache convert" in ran.err


# -- refused


def refused(hubcache: CommandLine, store: ObjectStore, weights: bytes) -> Ran:
    files = {"config.json": b'{"model_type": "palm"}', "palm_model.pt": weights, "vocab.txt": b"[PAD]\n"}
    store.put("evil.tar.gz", pack(files, ".tar.gz"))
    return hubcache("pull", store.url("evil.tar.gz"))


def test_a_pickle_that_would_run_something_is_refused_by_name_and_kept_as_published(
    hubcache: CommandLine, store: ObjectStore, tmp_path: Path
) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            import os

            return os.system, (f"touch {tmp_path}/ran",)

    ran = refused(hubcache, store, pickle.dumps({"a": Evil()}, protocol=2))
    assert (ran.code, "posix.system" in ran.err, (tmp_path / "ran").exists()) == (6, True, False)
    assert hubcache.ref("127-0-0-1/evil") == hubcache.ref("127-0-0-1/evil", "original")


def test_what_is_no_checkpoint_is_told_so_by_convert(hubcache: CommandLine, store: ObjectStore) -> None:
    store.put("plain.tar.gz", pack({"notes.txt": b"text"}, ".tar.gz"))
    hubcache("pull", store.url("plain.tar.gz"))
    ran = hubcache("convert", "127-0-0-1/plain")
    assert (ran.code, "nothing to convert" in ran.err) == (2, True)
