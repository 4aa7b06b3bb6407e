"""What a person asked for, as one value; the grammar that reads and writes it is ids.py."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hubcache.core.artifact import RepoId


@dataclass(frozen=True, slots=True)
class Reference:
    """One parsed reference.

    Attributes:
        scheme: which source answers it: hf, zoo, http (any http or https URL), file, or a plug-in's.
        address: what that source understands: `org/name`, a stub, a URL, an absolute or relative path.
        repo: the repo it is, or becomes, in the cache.
        revision: branch, tag, refs/pr/N, or a full or short commit; "main" for what is no git repo.
        path: one file, or a folder (ending in "/"), of the repo; None for all of it.
        arguments: a stub's `?recipe=…` pairs, a URL's `#sha256=…`.
    """

    scheme: str
    address: str
    repo: RepoId
    revision: str = "main"
    path: str | None = None
    arguments: tuple[tuple[str, str], ...] = ()

    def stored_as(self, repo: RepoId) -> Reference:
        """Keep the source and change the repo it becomes."""
        return replace(self, repo=repo)

    def argument(self, name: str) -> str | None:
        """Return the argument's value, None where it was not given."""
        return dict(self.arguments).get(name)
