"""`hubcache predict` as people call it: offline, on a small model made here."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hubcache.demo.models import tiny_bert
from tests.support.commandline import CommandLine

pytest.importorskip("torch")
pytest.importorskip("transformers")

pytestmark = [pytest.mark.slow, pytest.mark.train]

MODEL = "local/tiny"


@pytest.fixture(scope="module")
def hubcache(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    folder = tmp_path_factory.mktemp("predict")
    source = folder / "tiny"
    source.mkdir()
    for path, content in tiny_bert(7).items():
        (source / path).write_bytes(content)
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps({**config, "architectures": ["BertModel"]}))
    command = CommandLine(
        folder, HF_HUB_OFFLINE="1", XDG_STATE_HOME=str(folder / "state"), TOKENIZERS_PARALLELISM="false"
    )
    pulled = command("pull", source, "--as", MODEL)
    assert pulled.code == 0, pulled.err
    return command


def test_a_line_of_json_for_each_text_in_their_order(hubcache: CommandLine, tmp_path: Path) -> None:
    texts = ["a very long day in the room and so the people", "day", "the movie was good"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    ran = hubcache("predict", "feature-extraction", MODEL, "--file", tmp_path / "texts.txt")
    assert ran.code == 0, ran.err
    lengths = [len(json.loads(line)[0]) for line in ran.out.splitlines()]
    assert len(lengths) == 3
    assert lengths[0] > lengths[2] > lengths[1]


def test_the_model_comes_from_the_cache_and_stderr_says_which(hubcache: CommandLine) -> None:
    ran = hubcache("predict", "feature-extraction", "auto", "the movie")
    assert ran.code == 0, ran.err
    assert f"taking {MODEL} from the cache" in ran.err
    assert len(ran.out.splitlines()) == 1


def test_a_model_that_is_not_cached_is_refused_with_the_pull_that_brings_it(hubcache: CommandLine) -> None:
    ran = hubcache("predict", "ner", "org/none", "a text")
    assert ran.code == 5
    assert "hubcache pull org/none" in ran.err


def test_help_fits_80_columns(hubcache: CommandLine) -> None:
    assert max(map(len, hubcache("predict", "--help", COLUMNS="80").out.splitlines())) <= 80
