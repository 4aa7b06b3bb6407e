"""`hubcache diff`: what two commits do not share, told from digests and headers alone."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.core.tensorlist import header_length, parse_header
from hubcache.errors import IntegrityError
from tests.support.commandline import CommandLine, Ran
from tests.support.loophub import LoopHub


def weights(tensors: dict[str, tuple[str, list[int], int]]) -> bytes:
    """Write a safetensors file of zeros: name -> dtype, shape, bytes."""
    rows, at = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        rows[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, at + size]}
        at += size
    header = json.dumps({"__metadata__": {"format": "pt"}, **rows}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(at)


OLD = {"w": ("F32", [2, 2], 16), "b": ("F32", [2], 8), "gone": ("F32", [1], 4)}
NEW = {"w": ("BF16", [2, 2], 8), "b": ("F32", [2], 8), "new.bias": ("F32", [3], 12)}


@pytest.fixture
def diffed(tmp_path: Path) -> Ran:
    """`hubcache diff` of two commits that are cached."""
    command = CommandLine(tmp_path)
    with LoopHub() as hub:
        first = hub.add_repo(
            "u/m", {"a.txt": b"one", "same.txt": b"same", "m.safetensors": weights(OLD), "x/y.txt": b"moved"}
        )
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
        second = {
            "a.txt": b"two",
            "same.txt": b"same",
            "m.safetensors": weights(NEW),
            "x/z.txt": b"moved",
            "n.txt": b"new",
        }
        hub.add_commit("u/m", second, replace=True)
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
    ran = command("diff", f"u/m@{first}", "u/m", "--json")
    assert ran.code == 0, ran.err
    return ran


def test_files_are_told_as_added_changed_and_renamed(diffed: Ran) -> None:
    changes = {row["path"]: row["change"] for row in diffed.facts["files"]}
    assert changes == {"a.txt": "changed", "m.safetensors": "changed", "n.txt": "added", "x/z.txt": "renamed"}


def test_a_renamed_file_has_its_former_name(diffed: Ran) -> None:
    assert [row["was"] for row in diffed.facts["files"] if row["change"] == "renamed"] == ["x/y.txt"]


def test_files_that_are_shared_are_counted(diffed: Ran) -> None:
    assert diffed.facts["same_files"] == 1


def test_tensors_differ_by_name_type_and_shape(diffed: Ran) -> None:
    changes = {row["name"]: row["change"] for row in diffed.facts["tensors"]}
    assert changes == {"gone": "removed", "new.bias": "added", "w": "changed"}


def test_a_tensor_is_told_with_its_type_shape_and_bytes(diffed: Ran) -> None:
    [row] = [row for row in diffed.facts["tensors"] if row["name"] == "w"]
    assert row["a"] == {"dtype": "F32", "shape": [2, 2], "size": 16}
    assert row["b"] == {"dtype": "BF16", "shape": [2, 2], "size": 8}


def test_a_commit_does_not_differ_from_itself(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    with LoopHub() as hub:
        hub.add_repo("u/m", {"m.safetensors": weights(OLD)})
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
    facts = command("diff", "u/m", "u/m", "--json").facts
    assert (facts["files"], facts["tensors"], facts["same_files"]) == ([], [], 1)


def test_damaged_weights_are_told_and_do_not_end_it(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    with LoopHub() as hub:
        first = hub.add_repo("u/m", {"m.safetensors": b"\xff" * 40})
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
        hub.add_commit("u/m", {"m.safetensors": weights(OLD)})
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
    facts = command("diff", f"u/m@{first}", "u/m", "--json").facts
    assert facts["unread"] == [f"u/m@{first[:12]}/m.safetensors"]


def test_the_table_fits_80_columns(tmp_path: Path) -> None:
    command = CommandLine(tmp_path)
    name = "encoder.layers." + "deep." * 20 + "weight"
    with LoopHub() as hub:
        first = hub.add_repo("u/m", {"m.safetensors": weights({name: ("F32", [1024, 1024], 4)})})
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
        hub.add_commit("u/m", {"m.safetensors": weights({name: ("BF16", [1024, 1024], 2)})})
        command("pull", "u/m", HF_ENDPOINT=hub.endpoint)
    lines = command("diff", f"u/m@{first}", "u/m").out.splitlines()
    assert max(map(len, lines)) <= 80


def test_the_tensors_are_those_that_safetensors_reads(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "m.safetensors"
    path.write_bytes(weights(OLD))
    content = path.read_bytes()
    ours = {
        name: each.shape
        for name, each in parse_header(content[8 : 8 + header_length(content[:8], len(content))]).items()
    }
    with safetensors.safe_open(path, "np") as file:
        assert ours == {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


@given(st.binary(max_size=200))
def test_no_bytes_break_the_header(content: bytes) -> None:
    try:
        tensors = parse_header(content[8 : 8 + header_length(content[:8], len(content))])
    except IntegrityError:
        return
    assert all(tensor.size >= 0 and min(tensor.shape, default=0) >= 0 for tensor in tensors.values())
