"""Every source and store held to its contract."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, Manifest, RepoId, Revision
from hubcache.core.ports import Source
from hubcache.core.reference import Reference
from hubcache.errors import EntryNotFound, HubcacheError, NotFound, OfflineError, RepoNotFound, RevisionNotFound
from hubcache.mirrors.book import HealthBook
from hubcache.mirrors.config import Mirror
from hubcache.mirrors.failover import Failover, Member
from hubcache.sources.offline import Offline
from hubcache.sources.registry import SourceConfig, make_source
from tests.contracts import SourceContract, StoreContract
from tests.support.archives import pack
from tests.support.loophub import LoopHub
from tests.support.loopzoo import LoopZoo
from tests.support.objectstore import ObjectStore
from tests.support.puller import Puller, Seen

FILES = {"config.json": b"{}", "sub/weights.bin": os.urandom(5000), "README.md": b"# read me\n"}
STUB = "zoo:nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90-none"
Absent = list[tuple[Reference, type[HubcacheError]]]


def source_of(scheme: str, cache: Path, *, endpoint: str = "http://127.0.0.1:9") -> Source:
    """Make a source as the wiring does, without what that puts around it."""
    app = Puller.into(cache, endpoint).app
    return make_source(scheme, SourceConfig(app.net, app.endpoints(), app.cache, Seen(), print))


def with_path(repo: str, scheme: str, address: str, revision: str = "main") -> Reference:
    return Reference(scheme, address, RepoId("hf" if scheme == "hf" else scheme, "model", repo), revision)


@pytest.fixture
def hub() -> Iterator[LoopHub]:
    with LoopHub() as server:
        server.add_repo("org/m", FILES)
        yield server


@pytest.fixture
def store() -> Iterator[ObjectStore]:
    packed = pack({f"m/{path}": content for path, content in FILES.items()}, ".tar.gz")
    with ObjectStore({"m.tar.gz": packed, "weights.bin": FILES["sub/weights.bin"]}) as server:
        yield server


class TestHubSource(SourceContract):
    @pytest.fixture
    def source(self, hub: LoopHub, tmp_path: Path) -> Source:
        return source_of("hf", tmp_path / "hub", endpoint=hub.endpoint)

    @pytest.fixture
    def reference(self) -> Reference:
        return with_path("org/m", "hf", "org/m")

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return FILES

    @pytest.fixture
    def absent(self) -> Absent:
        return [
            (with_path("org/none", "hf", "org/none"), RepoNotFound),
            (with_path("org/m", "hf", "org/m", "none"), RevisionNotFound),
        ]

    @pytest.fixture
    def down(self, hub: LoopHub) -> Callable[[], None]:
        return hub.stop


class TestWired(TestHubSource):
    """The cache before the mirrors before the hub."""

    @pytest.fixture
    def source(self, hub: LoopHub, tmp_path: Path) -> Source:
        return Puller.into(tmp_path / "hub", hub.endpoint).app.source("hf", Seen(), print)


class TestFailover(TestHubSource):
    """Two mirrors, of which the first gives no answer."""

    @pytest.fixture
    def source(self, hub: LoopHub, tmp_path: Path) -> Source:
        app = Puller.into(tmp_path / "hub").app
        members = []
        for url in ("http://127.0.0.1:9", hub.endpoint):
            config = SourceConfig(app.net.asking_once(), {"huggingface": url}, app.cache, Seen(), print)
            members.append(Member(Mirror(url, url, "huggingface"), make_source("hf", config)))
        return Failover(members, HealthBook(), notify=print)


class TestStagedArchiveAtUrl(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Source]:
        source = source_of("http", tmp_path / "hub")
        yield source
        source.close()

    @pytest.fixture
    def reference(self, store: ObjectStore) -> Reference:
        return with_path("bucket/m", "http", store.url("m.tar.gz"))

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return FILES

    @pytest.fixture
    def absent(self, store: ObjectStore) -> Absent:
        return [(with_path("bucket/none", "http", store.url("none.tar.gz")), NotFound)]

    @pytest.fixture
    def down(self, store: ObjectStore) -> Callable[[], None]:
        return store.stop


class TestStagedFileAtUrl(TestStagedArchiveAtUrl):
    @pytest.fixture
    def reference(self, store: ObjectStore) -> Reference:
        return with_path("bucket/weights", "http", store.url("weights.bin"))

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {"weights.bin": FILES["sub/weights.bin"]}


class TestStagedZoo(SourceContract):
    @pytest.fixture
    def zoo(self) -> Iterator[LoopZoo]:
        with LoopZoo() as server:
            files = {"training/config.json": b"{}", "deployment/model.onnx": FILES["sub/weights.bin"]}
            server.add_model(STUB, files)
            yield server

    @pytest.fixture
    def source(self, zoo: LoopZoo, tmp_path: Path) -> Iterator[Source]:
        source = source_of("zoo", tmp_path / "hub", endpoint=zoo.endpoint)
        yield source
        source.close()

    @pytest.fixture
    def reference(self) -> Reference:
        return with_path("sparsezoo/m", "zoo", STUB)

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return {"config.json": b"{}", "deployment/model.onnx": FILES["sub/weights.bin"]}

    @pytest.fixture
    def absent(self) -> Absent:
        return [(with_path("sparsezoo/none", "zoo", STUB.replace("obert", "none")), RepoNotFound)]

    @pytest.fixture
    def down(self, zoo: LoopZoo) -> Callable[[], None]:
        return zoo.stop


class TestLocalFolder(SourceContract):
    @pytest.fixture
    def source(self, tmp_path: Path) -> Iterator[Source]:
        source = source_of("file", tmp_path / "hub")
        yield source
        source.close()

    @pytest.fixture
    def reference(self, tmp_path: Path) -> Reference:
        for path, content in FILES.items():
            file = tmp_path / "folder" / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return with_path("local/folder", "file", str(tmp_path / "folder"))

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return FILES

    @pytest.fixture
    def absent(self, tmp_path: Path) -> Absent:
        (tmp_path / "empty").mkdir()
        return [
            (with_path("local/none", "file", str(tmp_path / "none")), EntryNotFound),
            (with_path("local/empty", "file", str(tmp_path / "empty")), EntryNotFound),
        ]


class TestStagedLocalArchive(TestLocalFolder):
    @pytest.fixture
    def reference(self, tmp_path: Path) -> Reference:
        archive = tmp_path / "m.zip"
        archive.write_bytes(pack(FILES, ".zip"))
        return with_path("local/m", "file", str(archive))


class TestCacheAsSource(SourceContract):
    @pytest.fixture
    def source(self, hub: LoopHub, tmp_path: Path) -> Source:
        puller = Puller.into(tmp_path / "hub", hub.endpoint)
        puller("org/m")
        return puller.app.cache

    @pytest.fixture
    def reference(self) -> Reference:
        return with_path("org/m", "hf", "org/m")

    @pytest.fixture
    def files(self) -> dict[str, bytes]:
        return FILES

    @pytest.fixture
    def absent(self) -> Absent:
        return [
            (with_path("org/none", "hf", "org/none"), OfflineError),
            (with_path("org/m", "hf", "org/m", "none"), OfflineError),
        ]


class TestCache(StoreContract):
    @pytest.fixture(params=[True, False], ids=["links", "real files"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Cache:
        return Cache(tmp_path / "hub", symlinks=request.param)


class TestOffline:
    """A source that has no way out promises only how it says so."""

    REFERENCE = with_path("org/m", "hf", "org/m")

    def test_resolving_is_refused(self) -> None:
        with pytest.raises(OfflineError):
            Offline().resolve(self.REFERENCE)

    def test_opening_is_refused_before_it_returns(self) -> None:
        artifact = Artifact(self.REFERENCE.repo, Revision("main", "a" * 40), Manifest({}))
        with pytest.raises(OfflineError):
            Offline().open(artifact, "config.json")  # type: ignore[arg-type]
