"""`hubcache path`: where a cached reference stands."""

from __future__ import annotations

from hubcache.app.local import find
from hubcache.core.artifact import parse_path
from hubcache.errors import EntryNotFound
from hubcache_cli.options import AsJson, CacheDir, CachedReference, TypeOption, make_local_app, parse_kind
from hubcache_cli.output import print_json


def run(
    reference: CachedReference, kind: TypeOption = None, cache_dir: CacheDir = None, as_json: AsJson = False
) -> None:
    """Print the snapshot's folder, or the file's path where the reference names one; nothing is asked of any hub."""
    app = make_local_app(cache_dir)
    [(found, artifact)] = find(app, [reference], kind=parse_kind(kind))
    path = app.cache.folder(artifact.repo).snapshot_path(artifact.revision.commit)
    if found.path:
        inside = parse_path(found.path.rstrip("/"))
        path = path / inside
        if not path.exists():
            raise EntryNotFound(f"{artifact.repo}@{artifact.revision.commit[:12]} has no {inside} in the cache")
    if as_json:
        print_json({"path": str(path), "commit": artifact.revision.commit, "repo": artifact.repo.name})
    else:
        print(path)
