"""What stands in every source's place when the network is off: it answers nothing."""

from __future__ import annotations

from typing import NoReturn

from hubcache.core.artifact import Artifact, RepoPath
from hubcache.core.reference import Reference
from hubcache.errors import OfflineError


class Offline:
    """A source that has no way out."""

    def resolve(self, reference: Reference, /) -> NoReturn:
        """Say that the network is off."""
        raise OfflineError(f"{reference.address}: the network is off (HF_HUB_OFFLINE)", hint="unset HF_HUB_OFFLINE")

    def open(self, artifact: Artifact, path: RepoPath, start: int = 0, end: int | None = None) -> NoReturn:
        """Say that the network is off."""
        raise OfflineError(
            f"{artifact.repo}/{path} is not in the cache, and the network is off (HF_HUB_OFFLINE)",
            hint=f"online, run: hubcache pull {artifact.repo}",
        )

    def close(self) -> None:
        """Hold nothing."""
