"""What may go wrong with ModelScope's answers, bytes and tokens; what goes right is test_modelscope.py's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hubcache.cache.store import Cache
from hubcache.core.artifact import RepoPath
from hubcache.core.ids import parse
from hubcache.core.origins import Origin
from hubcache.errors import (
    AccessDenied,
    EntryNotFound,
    HubcacheError,
    IntegrityError,
    RateLimited,
    RepoNotFound,
    RevisionNotFound,
    SourceUnavailable,
)
from tests.support.commandline import files_of
from tests.support.httpd import Origin as Server
from tests.support.loopscope import LoopScope
from tests.support.loopserver import json_reply
from tests.support.scopemirror import FILES, TOKEN, WEIGHTS, Mirror
from tests.support.wholeness import faults


@pytest.fixture
def scope() -> Iterator[LoopScope]:
    with LoopScope() as server:
        yield server


@pytest.fixture
def mirror(scope: LoopScope, tmp_path: Path) -> Mirror:
    return Mirror(Cache(tmp_path / "hub"), scope.endpoint)


# -- bytes


def test_a_range_is_that_range_and_its_address_is_asked_for_once(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    assert mirror.read("model.safetensors", 100, 300, times=3) == [(100, WEIGHTS[100:300])] * 3
    assert [request.origin for request in scope.requests] == ["scope", "scope", "store", "store", "store"]


def test_an_address_that_has_run_out_is_asked_for_again(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    source = mirror.source
    artifact = source.resolve(parse("ms:org/name"))
    for codes in ([], [403]):
        scope.fail_origin["store"] = codes
        with source.open(artifact, RepoPath("model.safetensors"), 5, 9) as content:
            assert content.read(100) == WEIGHTS[5:9]


def test_a_small_file_comes_whole_whatever_the_range(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    assert mirror.read("config.json", 2, 4) == [(0, FILES["config.json"])]


def test_a_transfer_that_breaks_off_goes_on(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES)
    scope.truncate["model.safetensors"] = 3000
    assert files_of(mirror.pull()) == FILES
    assert [r.headers.get("range") for r in scope.requests if r.origin == "store"][1] == "bytes=3000-10239"


@pytest.mark.parametrize("path", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("lie", ["corrupt", "wrong_sha256"])
def test_bytes_that_are_not_what_was_listed_are_not_kept(scope: LoopScope, mirror: Mirror, path: str, lie: str) -> None:
    scope.add_repo("org/name", FILES)
    getattr(scope, lie).add(path)
    with pytest.raises(IntegrityError, match=f"org/name/{path}"):
        mirror.pull()
    assert mirror.refs() == {}
    assert faults(mirror.cache.root) == []


# -- wrong answers


ROW = {"Type": "blob", "Path": "x", "Size": 1, "Sha256": "0" * 64}
HOSTILE = [{"Path": path} for path in ("../x", "/x", "a/../../x", "a\\..\\x", "C:/x", ".git/hooks/x", "con", "x\0", "")]
HOSTILE += [{"Sha256": text} for text in ("../" * 21 + "x", "A" * 64, "0" * 40, "", None)]
HOSTILE += [{"Size": size} for size in (-1, "1", 1.5, None)] + [{"Path": "config.json"}, {"Path": None, "Name": "x"}]


@pytest.mark.parametrize("wrong", HOSTILE, ids=repr)
def test_a_row_that_may_not_reach_the_disk_is_refused(
    scope: LoopScope, mirror: Mirror, wrong: dict[str, object]
) -> None:
    scope.add_repo("org/name", FILES)
    scope.rows = [ROW | {"Path": "fine"}, ROW | wrong]
    with pytest.raises(IntegrityError, match="lists a file that cannot be read"):
        mirror.resolve()


def test_what_is_not_there_is_not_found(scope: LoopScope, mirror: Mirror) -> None:
    scope.set_tag("org/name", "v1", scope.add_repo("org/name", FILES))
    with pytest.raises(RepoNotFound, match="record not found"):
        mirror.resolve("ms:org/none")
    with pytest.raises(RevisionNotFound, match=r"there are: master, v1") as caught:
        mirror.resolve("ms:org/name@v2")
    assert caught.value.hint == "ms:org/name@master"
    scope.rows = [ROW]
    with pytest.raises(EntryNotFound, match="file not found"):
        mirror.read("x")
    with pytest.raises(EntryNotFound):
        mirror.read("y")


@pytest.mark.parametrize(
    ("knob", "value", "error"), [("down", True, SourceUnavailable), ("rate_limit", 9, RateLimited)]
)
def test_no_answer_is_no_answer(
    scope: LoopScope, mirror: Mirror, knob: str, value: object, error: type[HubcacheError]
) -> None:
    scope.add_repo("org/name", FILES)
    setattr(scope, knob, value)
    with pytest.raises(error):
        mirror.resolve()


REFUSED = {"Code": 500, "Success": False, "Message": "busy", "Data": {"Files": []}}
STRANGE = [[], {}, {"Data": []}, {"Data": {"Files": 3}}, {"Data": {"Files": [3]}}, REFUSED]
STRANGE += [{"Data": {"Files": [], "LatestCommitter": "x"}}]


@pytest.mark.parametrize("answer", STRANGE, ids=repr)
def test_what_is_no_modelscope_gives_no_answer(mirror: Mirror, answer: object) -> None:
    server = Server(lambda request: json_reply(answer))
    mirror.endpoint = server.url
    server.start()
    try:
        with pytest.raises(SourceUnavailable, match=r"no listing|gave no answer about org/name(: busy)?"):
            mirror.resolve()
    finally:
        server.stop()


# -- the token


def test_the_token_goes_to_its_origin_and_not_to_the_store(scope: LoopScope, mirror: Mirror) -> None:
    scope.add_repo("org/name", FILES, token=TOKEN)
    mirror.tokens = {Origin.of(scope.endpoint): TOKEN}
    assert files_of(mirror.pull()) == FILES
    assert {request.origin for request in scope.requests if TOKEN in str(request)} == {"scope"}


@pytest.mark.parametrize("token", [None, "other"])
def test_a_private_repo_is_denied_without_its_token(scope: LoopScope, mirror: Mirror, token: str | None) -> None:
    scope.add_repo("org/name", FILES, token=TOKEN)
    mirror.tokens = {Origin.of(scope.endpoint): token} if token else {}
    scope.revoked = {"other"}
    with pytest.raises(AccessDenied) as caught:
        mirror.resolve()
    assert "mirrors.yaml" in caught.value.hint
    assert "other" not in str(caught.value)
