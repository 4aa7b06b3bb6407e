"""Random faults for a whole cache: each damages something no other fault has touched and says where it must be told.

Whether it is told, and how it is repaired, is not judged here.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

from hubcache.cache.folder import RepoFolder
from hubcache.cache.scan import scan_repos
from tests.support.wholeness import digest
from tests.support.wreck import Wreck, links_to, snapshot_of

Fault = Callable[[Wreck, RepoFolder], bool]
"""Damages something; False where there is nothing left to damage in this way."""


def _shown(folder: RepoFolder, file: Path) -> str:
    return file.relative_to(folder.path).as_posix()


def _other_bytes(rng: random.Random, content: bytes) -> bytes:
    """Damage bytes in one of the ways disks and tools do."""
    damaged = bytearray(content)
    ways = ["longer", "other"] + (["flip", "flips", "cut", "zeros"] if content else [])
    match rng.choice(ways):
        case "flip":
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        case "flips":
            for at in rng.sample(range(len(damaged)), min(len(damaged), rng.randint(2, 9))):
                damaged[at] ^= 1 << rng.randrange(8)
        case "cut":
            del damaged[rng.randrange(len(damaged)) :]
        case "zeros":
            at = rng.randrange(len(damaged))
            damaged[at : at + 512] = bytes(len(damaged[at : at + 512]))
        case "longer":
            damaged += rng.randbytes(rng.randint(1, 50))
        case _:
            damaged = bytearray(rng.randbytes(len(damaged) or 7))
    return bytes(damaged) if bytes(damaged) != content else content + b"!"


# -- bytes


def _damage_target(wreck: Wreck, folder: RepoFolder) -> Path | None:
    """Draw a blob, or a real file of a snapshot where there are no links."""
    blob = wreck.blob(folder)
    if blob is not None:
        return blob
    file = wreck.file(folder) if not any(folder.path.glob("blobs/*")) else None
    return file


def spoil_bytes(wreck: Wreck, folder: RepoFolder) -> bool:
    if (file := _damage_target(wreck, folder)) is None:
        return False
    file.write_bytes(_other_bytes(wreck.rng, file.read_bytes()))
    wreck.tell(folder, _shown(folder, file), "corrupt")
    return True


def write_through_a_link(wreck: Wreck, folder: RepoFolder) -> bool:
    """Edit a blob by the name it has in a snapshot, as scripts do."""
    blob = wreck.blob(folder)
    if blob is None:
        return False
    wreck.rng.choice(links_to(folder, blob.name)).write_bytes(_other_bytes(wreck.rng, blob.read_bytes()))
    wreck.tell(folder, _shown(folder, blob), "corrupt")
    return True


def swap_bytes(wreck: Wreck, folder: RepoFolder) -> bool:
    first = _damage_target(wreck, folder)
    second = _damage_target(wreck, folder) if first is not None else None
    if first is None or second is None or first.read_bytes() == second.read_bytes():
        return False
    held = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(held)
    for file in (first, second):
        wreck.tell(folder, _shown(folder, file), "corrupt")
    return True


def lose_a_blob(wreck: Wreck, folder: RepoFolder) -> bool:
    if (blob := wreck.blob(folder)) is None:
        return False
    for link in links_to(folder, blob.name):
        wreck.tell(folder, _shown(folder, link), "dangling-link")
    blob.unlink()
    return True


def make_a_blob_a_folder(wreck: Wreck, folder: RepoFolder) -> bool:
    if (blob := wreck.blob(folder)) is None:
        return False
    blob.unlink()
    blob.mkdir()
    (blob / "file").write_bytes(b"x")
    wreck.tell(folder, _shown(folder, blob), "foreign-name")
    return True


def lead_a_blob_elsewhere(wreck: Wreck, folder: RepoFolder) -> bool:
    """Make a blob a link: out of the cache to the same or other bytes, to itself, or into a store without it."""
    if (blob := wreck.blob(folder)) is None:
        return False
    outside = wreck.root.parent / f"outside-{blob.name}"
    outside.write_bytes(blob.read_bytes() if wreck.rng.random() < 0.5 else b"other")
    payload = wreck.rng.randbytes(32).hex()
    target = wreck.rng.choice([str(outside), blob.name, f"../../blobs/{payload[:2]}/{payload}", "../../../nowhere"])
    blob.unlink()
    blob.symlink_to(target)
    wreck.tell(folder, _shown(folder, blob), "escaping-link", "unreadable", "dangling-link")
    return True


# -- the store that repos share


def _users(wreck: Wreck, payload: Path) -> list[tuple[RepoFolder, Path]]:
    return [
        (folder, blob)
        for folder in scan_repos(wreck.root)
        for blob in sorted(folder.path.glob("blobs/*"))
        if blob.is_symlink() and os.readlink(blob).endswith(payload.name)
    ]


def spoil_a_payload(wreck: Wreck, folder: RepoFolder) -> bool:
    if (blob := wreck.blob(folder, stored=True)) is None:
        return False
    payload = blob.resolve()
    users = _users(wreck, payload)
    if wreck.taken & {link for _, link in users if link != blob}:
        return False
    lost = wreck.rng.random() < 0.3
    for user, link in users:
        wreck.taken |= {link, *links_to(user, link.name)}
        wreck.tell(user, _shown(user, link), "dangling-link" if lost else "corrupt")
    if lost:
        payload.unlink()
    else:
        payload.chmod(0o644)
        payload.write_bytes(_other_bytes(wreck.rng, payload.read_bytes()))
    return True


# -- snapshots


def spoil_a_link(wreck: Wreck, folder: RepoFolder) -> bool:
    """Let a snapshot's link lead to another blob, to none, or out of the repo."""
    file = wreck.file(folder)
    if file is None or not file.is_symlink():
        return False
    rng, target = wreck.rng, os.readlink(file)
    outside = wreck.root.parent / f"outside-{rng.randbytes(4).hex()}"
    outside.write_bytes(file.read_bytes() if rng.random() < 0.5 else b"other")
    others = [blob.name for blob in sorted(folder.path.glob("blobs/*")) if blob.name != os.path.basename(target)]
    up, name = target.rpartition("/")[0], rng.choice(["other", "none", "out", "circle"])
    file.unlink()
    if name == "other" and others:
        file.symlink_to(f"{up}/{rng.choice(others)}")
    elif name == "out":
        file.symlink_to(outside)
    elif name == "circle":
        file.symlink_to(file.name)
    else:
        file.symlink_to(f"{up}/{rng.randbytes(rng.choice((20, 32))).hex()}")
    wreck.tell(folder, _shown(folder, file), "wrong-link", "escaping-link", "dangling-link")
    return True


def lose_a_link(wreck: Wreck, folder: RepoFolder) -> bool:
    """Take one file's link away: a file that was not pulled looks the same, and is told as a note."""
    file = wreck.file(folder)
    if file is None or not file.is_symlink():
        return False
    file.unlink()
    wreck.tell(folder, _shown(folder, snapshot_of(folder, file)), "partial")
    return True


def put_a_file_in_a_links_place(wreck: Wreck, folder: RepoFolder) -> bool:
    file = wreck.file(folder)
    if file is None:
        return False
    content = _other_bytes(wreck.rng, file.read_bytes())
    file.unlink()
    file.write_bytes(content)
    wreck.tell(folder, _shown(folder, file), "corrupt")
    return True


def make_a_file_something_else(wreck: Wreck, folder: RepoFolder) -> bool:
    if (file := wreck.file(folder)) is None:
        return False
    file.unlink()
    os.mkfifo(file)
    wreck.tell(folder, _shown(folder, file), "foreign-name")
    return True


def plant_a_file(wreck: Wreck, folder: RepoFolder) -> bool:
    found = [each for each in sorted(folder.path.glob("snapshots/*")) if each not in wreck.taken and each.is_dir()]
    found = [each for each in found if folder.tree_path(each.name).is_file()]
    if not found:
        return False
    snapshot = wreck.rng.choice(found)
    wreck.used.add(snapshot)
    file = snapshot / wreck.rng.choice(["", "sub/", "new/deep/"]) / f"{wreck.rng.randbytes(3).hex()}.py"
    file.parent.mkdir(parents=True, exist_ok=True)
    wreck.taken.add(file)
    if wreck.rng.random() < 0.7:
        file.write_bytes(b"import os")
    else:
        file.symlink_to(wreck.rng.choice(["/etc/hostname", "nowhere"]))
    wreck.tell(folder, _shown(folder, file), "unlisted")
    return True


def lose_a_snapshot(wreck: Wreck, folder: RepoFolder) -> bool:
    """Take away a commit's files, or put something else in their folder's place, while refs mean it still."""
    refs = {name: held for name, held in folder.refs().items() if folder.ref_path(name) not in wreck.taken}
    snapshot = wreck.snapshot(folder)
    if snapshot is None or snapshot.name not in refs.values() or len(refs) < len(folder.refs()):
        return False
    if not any(file.is_symlink() for file in snapshot.rglob("*")):
        wreck.gone.add((folder.path.name, snapshot.name))
    moved = wreck.root.parent / f"moved-{wreck.rng.randbytes(4).hex()}"
    os.rename(snapshot, moved)
    match wreck.rng.choice(["nothing", "file", "link"]):
        case "file":
            snapshot.write_bytes(b"")
            wreck.tell(folder, _shown(folder, snapshot), "foreign-name")
        case "link":
            snapshot.symlink_to(moved)
            wreck.tell(folder, _shown(folder, snapshot), "foreign-name")
    for name, held in refs.items():
        if held == snapshot.name:
            wreck.taken.add(folder.ref_path(name))
            wreck.tell(folder, f"refs/{name}", "dangling-ref")
    return True


# -- refs and listings


def spoil_a_ref(wreck: Wreck, folder: RepoFolder) -> bool:
    if (ref := wreck.ref(folder)) is None:
        return False
    held, rng = ref.read_bytes(), wreck.rng
    contents = [
        held + b"\n", b" " + held, held.upper() if held.upper() != held else b"", b"", held[: rng.randrange(40)],
        rng.randbytes(40), b"main", b"0" * 40, rng.randbytes(20).hex().encode(), held + held, b'{"a": 1}' * 99,
    ]  # fmt: skip
    ref.write_bytes(rng.choice(contents))
    wreck.tell(folder, _shown(folder, ref), "bad-ref", "dangling-ref")
    return True


def plant_a_ref(wreck: Wreck, folder: RepoFolder) -> bool:
    ref = folder.ref_path(wreck.rng.choice(["refs/pr/77", "notes.txt", "feature/none"]))
    if ref.exists():
        return False
    ref.parent.mkdir(parents=True, exist_ok=True)
    ref.write_bytes(wreck.rng.choice([b"0" * 40, b"hello", b""]))
    wreck.taken.add(ref)
    wreck.tell(folder, _shown(folder, ref), "bad-ref", "dangling-ref")
    return True


def spoil_a_listing(wreck: Wreck, folder: RepoFolder) -> bool:
    """Damage a listing so that it can be read no more."""
    if (snapshot := wreck.snapshot(folder)) is None:
        return False
    tree, rng = folder.tree_path(snapshot.name), wreck.rng
    content = tree.read_bytes()
    match rng.choice(["cut", "noise", "version", "circle", "folder", "empty", "list"]):
        case "cut":
            tree.write_bytes(content[: rng.randrange(len(content))])
        case "noise":
            tree.write_bytes(rng.randbytes(len(content)))
        case "version":
            tree.write_text(json.dumps(json.loads(content) | {"format_version": rng.choice([2, "1", None])}))
        case "circle":
            tree.unlink()
            tree.symlink_to(tree.name)
        case "folder":
            tree.unlink()
            tree.mkdir()
        case "empty":
            tree.write_bytes(b"")
        case _:
            tree.write_bytes(b"[1, 2]")
    wreck.tell(folder, _shown(folder, tree), "bad-listing", "unreadable")
    return True


def spoil_a_row(wreck: Wreck, folder: RepoFolder) -> bool:
    """Damage one row of a listing, which can be read still: a size, a digit of a digest, a letter of a path, all."""
    if (snapshot := wreck.snapshot(folder)) is None:
        return False
    tree, rng = folder.tree_path(snapshot.name), wreck.rng
    listing = json.loads(tree.read_bytes())
    rows = listing["files"]
    path = rng.choice(sorted(rows))
    shown, linked = f"snapshots/{snapshot.name}/{path}", (snapshot / path).is_symlink()
    match rng.choice(["size", "digest", "path", "gone", "swapped"]):
        case "size":
            key = "lfs_size" if "lfs_size" in rows[path] else "size"
            rows[path][key] += rng.randint(1, 1000)
            wreck.tell(folder, _shown(folder, tree), "wrong-size")
        case "digest":
            key = "lfs_sha256" if "lfs_sha256" in rows[path] else "blob_id"
            rows[path][key] = flipped(rng, rows[path][key])
            wreck.tell(folder, shown, "wrong-link" if linked else "corrupt")
        case "path":
            other = path[:-1] + chr(ord(path[-1]) ^ 1)
            rows[other] = rows.pop(path)
            wreck.tell(folder, shown, "unlisted")
        case "gone":
            del rows[path]
            wreck.tell(folder, shown, "unlisted")
        case _:
            other = rng.choice(sorted(rows))
            if rows[path] == rows[other]:
                rows[path] = rows.pop(path)
                return False
            rows[path], rows[other] = rows[other], rows[path]
            for each in (path, other):
                is_link = (snapshot / each).is_symlink()
                wreck.tell(folder, f"snapshots/{snapshot.name}/{each}", "wrong-link" if is_link else "corrupt")
    tree.write_text(json.dumps(listing, indent=1))
    return True


def flipped(rng: random.Random, text: str) -> str:
    """Change one hex digit."""
    at = rng.randrange(len(text))
    other = rng.choice([digit for digit in "0123456789abcdef" if digit != text[at]])
    return text[:at] + other + text[at + 1 :]


# -- what does not belong here


def leave_foreign_files(wreck: Wreck, folder: RepoFolder) -> bool:
    rng = wreck.rng
    content = rng.randbytes(rng.randint(0, 99))
    name, is_folder = rng.choice(["notes.txt", "sha256:abc", "A" * 64, "0" * 63, "x y"]), rng.random() < 0.2
    part = rng.choice(["blobs", "snapshots", "trees"])
    file = folder.path / part / name
    if os.path.lexists(file) or not file.parent.is_dir():
        return False
    if is_folder and part != "snapshots":
        file.mkdir()
    else:
        file.write_bytes(content)
    wreck.tell(folder, _shown(folder, file), "foreign-name", "bad-listing", "unreadable")
    return True


def leave_a_false_blob(wreck: Wreck, folder: RepoFolder) -> bool:
    """Put bytes among the blobs under a digest that is not theirs, and that nothing leads to."""
    if not folder.path.joinpath("blobs").is_dir():
        return False
    name = wreck.rng.randbytes(wreck.rng.choice((20, 32))).hex()
    (folder.path / "blobs" / name).write_bytes(b"x")
    wreck.tell(folder, f"blobs/{name}", "corrupt")
    return True


def leave_an_interrupted_write(wreck: Wreck, folder: RepoFolder) -> bool:
    if not folder.path.joinpath("blobs").is_dir():
        return False
    name = f"{digest(wreck.rng.randbytes(9), 64)}.{wreck.rng.randbytes(4).hex()}.incomplete"
    (folder.path / "blobs" / name).write_bytes(b"x" * 99)
    wreck.tell(folder, f"blobs/{name}", "leftover")
    return True


FAULTS: dict[Fault, int] = {
    spoil_bytes: 6, write_through_a_link: 1, swap_bytes: 2, lose_a_blob: 2, make_a_blob_a_folder: 1,
    lead_a_blob_elsewhere: 2, spoil_a_payload: 4, spoil_a_link: 4, lose_a_link: 1, put_a_file_in_a_links_place: 2,
    make_a_file_something_else: 1, plant_a_file: 2, lose_a_snapshot: 3, spoil_a_ref: 4, plant_a_ref: 1,
    spoil_a_listing: 3, spoil_a_row: 5, leave_foreign_files: 2, leave_a_false_blob: 1, leave_an_interrupted_write: 1,
}  # fmt: skip
"""Every fault, and how often it is drawn."""


def wreck_cache(root: Path, rng: random.Random, count: int) -> Wreck:
    """Damage a cache in `count` ways."""
    wreck = Wreck(root, rng)
    faults, weights = list(FAULTS), list(FAULTS.values())
    for _ in range(200):
        if len(wreck.names) == count:
            break
        [fault] = rng.choices(faults, weights)
        if fault(wreck, wreck.repo()):
            wreck.names.append(fault.__name__)
    return wreck
