"""Holds a cached repo against its digests and listings, and tells everything that is wrong; it repairs nothing."""

from __future__ import annotations

from hubcache.cache.findings import Report
from hubcache.cache.folder import RepoFolder
from hubcache.cache.hashing import FileHash, hash_files
from hubcache.cache.inspection import Claim, Inspection
from hubcache.core.ports import Progress


def verify_repo(folder: RepoFolder, *, commit: str | None = None, progress: Progress) -> Report:
    """Check all that a repo's folder holds, or one commit and what it needs; each blob is hashed once."""
    inspection = Inspection(folder, commit)
    claims = inspection.inspect()
    hashes = hash_files([(claim.file, claim.digest.algorithm) for claim in claims], progress, origin=str(folder.repo))
    for claim in claims:
        _judge(inspection, claim, hashes[claim.file, claim.digest.algorithm])
    return inspection.findings.report(len(hashes), sum(found.size for found in hashes.values()))


def _judge(inspection: Inspection, claim: Claim, found: FileHash) -> None:
    """Say what a file's hash shows: its bytes are wrong, or the listing is."""
    add, use = inspection.findings.add, claim.use
    named = f"{use.files[0][1]}: " if use.files and claim.path.startswith("blobs/") else ""
    others = {size: commit for size, commit in use.listed.items() if size != found.size}
    if found.error:
        add(claim.path, "unreadable", f"{named}cannot be read: {found.error}", use.commit)
    elif found.hex != claim.digest.hex:
        listed = f", {found.size} bytes where {min(others)} are listed" if others else ""
        add(claim.path, "corrupt", f"{named}its {claim.digest.algorithm} is {found.hex[:12]}{listed}", use.commit)
    else:
        for size, commit in others.items():
            message = f"gives {claim.digest.hex[:12]} {size} bytes where it has {found.size}"
            add(f"trees/{commit}.json", "wrong-size", message, commit)
