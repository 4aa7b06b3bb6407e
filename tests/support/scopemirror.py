"""Pulls from a ModelScope into a cache, within this process, for the tests of that source.

It asserts nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from hubcache.cache.store import Cache
from hubcache.core.artifact import Artifact, RepoId, RepoPath
from hubcache.core.ids import parse
from hubcache.core.origins import Origin
from hubcache.core.plan import plan_copy
from hubcache.net import Net, NetSettings
from hubcache.sources.modelscope import ModelScopeSource, make
from hubcache.sources.registry import SourceConfig
from hubcache.transfer import copy
from tests.support.puller import Seen

REPO = RepoId("ms", "model", "org/name")
TOKEN = "ms-secret"
WEIGHTS = bytes(range(256)) * 40
FILES = {"config.json": b'{"a": 1}', "sub/dir/n+o %.txt": b"deep", "model.safetensors": WEIGHTS, "empty.txt": b""}


@dataclass
class Mirror:
    """A cache, and what pulls into it from the ModelScope at `endpoint`; `lines` is what it said."""

    cache: Cache
    endpoint: str
    tokens: dict[Origin, str] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    @property
    def source(self) -> ModelScopeSource:
        net = Net(NetSettings(tokens=self.tokens, read_timeout=2))
        return make(
            SourceConfig(
                net, {"modelscope": f"{self.endpoint}/"}, self.cache, progress=Seen(), notify=self.lines.append
            )
        )

    def resolve(self, text: str = "ms:org/name") -> Artifact:
        """Pin a reference."""
        return self.source.resolve(parse(text))

    def pull(self, text: str = "ms:org/name") -> Path:
        """Bring all of a reference into the cache; return its snapshot."""
        source, reference = self.source, parse(text)
        artifact = source.resolve(reference)
        paths = list(artifact.manifest.files)
        copy(
            source, plan_copy(artifact, paths, lambda _, blob: self.cache.has(REPO, blob)), self.cache, progress=Seen()
        )
        return self.cache.commit(artifact, reference)

    def read(self, path: str, start: int = 0, end: int | None = None, times: int = 1) -> list[tuple[int, bytes]]:
        """Read bytes of a file of org/name, so many times: where the answers began, and what they were."""
        source, found = self.source, []
        artifact = source.resolve(parse("ms:org/name"))
        for _ in range(times):
            with source.open(artifact, RepoPath(path), start, end) as content:
                found.append((content.start, b"".join(iter(lambda: content.read(1 << 16), b""))))
        return found

    def refs(self) -> dict[str, str]:
        """Return the refs of org/name."""
        return self.cache.folder(REPO).refs()
