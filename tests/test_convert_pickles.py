"""A pickle that asks for code is refused by the name of what it asks for, and nothing of it runs."""

from __future__ import annotations

import argparse
import builtins
import os
import pickle
import random
import runpy
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hubcache.convert.checkpoint import plan_conversion
from hubcache.convert.pickles import read_pickle
from hubcache.errors import EntryNotFound, IntegrityError
from tests.support.converting import files_of
from tests.support.goldens import golden

pytestmark = pytest.mark.train

FORMATS = {"zip": True, "legacy": False}


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


ATTACKS: dict[str, Callable[[str], Call]] = {
    "posix.system": lambda mark: Call(os.system, f"touch {mark}"),
    "builtins.eval": lambda mark: Call(builtins.eval, f"open({mark!r}, 'w')"),
    "builtins.exec": lambda mark: Call(builtins.exec, f"open({mark!r}, 'w')"),
    "builtins.getattr": lambda mark: Call(getattr, argparse.Namespace(a=1), "a"),
    "shutil.copyfile": lambda mark: Call(shutil.copyfile, __file__, mark),
    "runpy.run_path": lambda mark: Call(runpy.run_path, mark),
}
PLACES: dict[str, Callable[[Call], Any]] = {
    "all": lambda call: call,
    "value": lambda call: {"a": torch.ones(2), "b": call},
    "nested": lambda call: {"epoch": 1, "state_dict": OrderedDict(a=torch.ones(2), b=[{"c": (call,)}])},
    "key": lambda call: {call: torch.ones(2)},
    "arguments": lambda call: {"args": argparse.Namespace(command=call), "model": {"a": torch.ones(2)}},
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


def save(value: Any, file: Path, form: str = "zip", protocol: int = 2) -> None:
    torch.save(value, file, _use_new_zipfile_serialization=FORMATS[form], pickle_protocol=protocol)


# Code.


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("wanted", ATTACKS)
def test_a_call_is_refused_by_name_and_never_made(
    wanted: str, place: str, form: str, file: Path, tmp_path: Path
) -> None:
    mark = tmp_path / "it-ran"
    save(PLACES[place](ATTACKS[wanted](str(mark))), file, form)
    with pytest.raises(IntegrityError) as caught:
        read_pickle(file)
    told = f"pytorch_model.bin asks for {wanted}, which weights have no use for; nothing of it was run"
    assert caught.value.message == told
    assert not mark.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_files_run_their_code_when_they_are_trusted(form: str, file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    save({"a": ATTACKS["posix.system"](str(mark))}, file, form)
    torch.load(file, weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_call_in_a_protocol_that_torch_does_not_read_is_named_too(form: str, file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    save({"a": ATTACKS["posix.system"](str(mark))}, file, form, protocol=4)
    with pytest.raises(IntegrityError, match=r"posix\.system"):
        read_pickle(file)
    assert not mark.exists()


def test_a_bare_pickle_is_no_checkpoint(file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    file.write_bytes(pickle.dumps(ATTACKS["posix.system"](str(mark)), protocol=2))
    with pytest.raises(IntegrityError, match=r"posix\.system"):
        read_pickle(file)
    assert not mark.exists()


def test_no_environment_variable_makes_a_pickle_run(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    mark = tmp_path / "it-ran"
    save({"a": ATTACKS["posix.system"](str(mark))}, file)
    with pytest.raises(IntegrityError, match=r"posix\.system"):
        read_pickle(file)
    assert not mark.exists()


def test_a_conversion_writes_nothing_of_a_repo_with_code_in_its_pickle(file: Path, tmp_path: Path) -> None:
    mark = tmp_path / "it-ran"
    (tmp_path / "config.json").write_text('{"model_type": "sbert"}')
    save({"bert.pooler.dense.bias": torch.ones(2), "b": ATTACKS["builtins.eval"](str(mark))}, file)
    checkpoint = plan_conversion(files_of(tmp_path), name="structbert")
    assert checkpoint is not None
    written: list[object] = []
    with pytest.raises(IntegrityError, match="eval"):
        checkpoint.convert(lambda *new: written.append(new))
    assert not written
    assert not mark.exists()


def test_reading_leaves_torchs_list_of_what_is_safe_as_it_was(file: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    save({"args": argparse.Namespace(a=1), "model": {"a": torch.ones(2)}}, file)
    read_pickle(file)
    assert set(torch.serialization.get_safe_globals()) == before


def test_a_torchscript_archive_is_no_checkpoint(file: Path) -> None:
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("a/constants.pkl", "a/data.pkl", "a/code/x.py", "a/version"):
            archive.writestr(name, b"3")
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
        read_pickle(file)


# What is broken.


@pytest.fixture(scope="module", params=FORMATS)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    file = tmp_path_factory.mktemp("whole") / "model.bin"
    save({"a": torch.rand(300), "b": torch.rand(7, 5).half(), "epoch": 2}, file, request.param)
    return file.read_bytes()


def test_a_checkpoint_cut_off_anywhere_is_told(whole: bytes, file: Path) -> None:
    for length in (*range(0, 64, 3), *range(64, len(whole) - 1, max(1, len(whole) // 60)), len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
            read_pickle(file)


def test_a_checkpoint_with_any_bytes_changed_is_read_or_told(whole: bytes, file: Path) -> None:
    draw = random.Random(7)
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(draw.choice((1, 2, 8))):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        file.write_bytes(changed)
        try:
            tensors = read_pickle(file).tensors
        except IntegrityError:
            continue
        assert all(sum(map(len, tensor.chunks())) == tensor.size for tensor in tensors.values())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00" * 4096,
        b"PK\x03\x04" + b"\x00" * 4096,
        b"\x80\x02" + b"(" * 5000 + b".",
        b"\x80\x02X" + struct.pack("<I", 0xFFFFFFFF) + b"a",
        b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"a",
        b"\x80\x02]" + b"q\x00h\x00a" * 1000 + b".",
        b"<html><body>404</body></html>",
        b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 1\n",
    ],
)
def test_garbage_is_told(content: bytes, file: Path) -> None:
    file.write_bytes(content)
    with pytest.raises(IntegrityError, match=r"pytorch_model\.bin"):
        read_pickle(file)


def test_a_bomb_of_nested_lists_is_told(file: Path) -> None:
    bomb: list[Any] = []
    for _ in range(100):
        bomb = [bomb] * 10
    save(bomb, file)
    with pytest.raises(IntegrityError, match="holds a list, not names and tensors"):
        read_pickle(file)


def test_a_mapping_that_holds_itself_ends(file: Path) -> None:
    loop: dict[str, Any] = {}
    loop["model"] = loop
    save(loop, file)
    with pytest.raises(IntegrityError, match="not names and tensors"):
        read_pickle(file)


def test_a_tensor_of_more_numbers_than_the_file_has_is_told(file: Path, tmp_path: Path) -> None:
    save({"a": torch.rand(300)}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    # 300 stands there twice: in the storage's length and in the tensor's shape.
    name = next(name for name in members if name.endswith("data.pkl"))
    members[name] = members[name].replace(b"M" + struct.pack("<H", 300), b"J" + struct.pack("<i", 1 << 30))
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(IntegrityError, match="read safely"):
        read_pickle(file)


def test_a_checkpoint_packed_once_more_reads_as_the_original(file: Path) -> None:
    tensor = torch.arange(5000, dtype=torch.float32)
    save({"a": tensor}, file)
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    assert b"".join(read_pickle(file).tensors["a"].chunks()) == tensor.numpy().tobytes()


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.ones(2), "a Tensor"),
        ([torch.ones(2)], "a list"),
        ({"a": 1, "b": "x"}, "a dict of 'a', 'b'"),
        ({}, "a dict of nothing"),
        ({1: torch.ones(2)}, "a dict of 1"),
        ({"model": {"a": 1}}, "a dict of 'a'"),
    ],
)
def test_what_is_no_mapping_of_names_to_tensors_is_told(value: Any, told: str, file: Path) -> None:
    save(value, file)
    with pytest.raises(IntegrityError, match=f"holds {told}, not names and tensors"):
        read_pickle(file)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.ones(2, dtype=torch.complex64),
    ],
    ids=["sparse", "complex"],
)
def test_a_tensor_of_a_kind_that_no_model_has_is_told(tensor: torch.Tensor, file: Path) -> None:
    save({"strange": tensor}, file)
    with pytest.raises(IntegrityError, match="strange"):
        read_pickle(file)


@pytest.mark.parametrize("form", FORMATS)
def test_one_number_repeated_without_end_is_told(form: str, file: Path) -> None:
    save({"huge": torch.ones(1).expand(1 << 20, 1 << 20)}, file, form)
    with pytest.raises(IntegrityError, match="larger than its file"):
        read_pickle(file)


def test_a_file_that_is_not_there_is_told(file: Path) -> None:
    with pytest.raises(EntryNotFound):
        read_pickle(file)


# What is whole.


@pytest.mark.parametrize("form", FORMATS)
def test_every_type_of_number_comes_out_as_it_went_in(form: str, file: Path) -> None:
    types = (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    tensors = {str(dtype): (torch.rand(3, 5) * 9).to(dtype) for dtype in types}
    save(tensors, file, form)
    read = read_pickle(file).tensors
    for name, tensor in tensors.items():
        assert read[name].shape == (3, 5)
        assert b"".join(read[name].chunks()) == tensor.view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("view", [lambda t: t.t(), lambda t: t[2:, 1:4], lambda t: t[0].expand(4, 7), lambda t: t[:0]])
def test_views_come_out_as_they_look(view: Callable[[torch.Tensor], torch.Tensor], form: str, file: Path) -> None:
    tensor = view(torch.arange(63, dtype=torch.float32).reshape(9, 7))
    save({"a": tensor, "b": torch.nn.Parameter(tensor)}, file, form)
    for stored in read_pickle(file).tensors.values():
        assert stored.shape == tuple(tensor.shape)
        assert b"".join(stored.chunks()) == tensor.contiguous().numpy().tobytes()


def test_bytes_can_be_read_as_often_as_one_likes(file: Path) -> None:
    save({"a": torch.rand(1 << 19)}, file)
    stored = read_pickle(file).tensors["a"]
    assert list(stored.chunks()) == list(stored.chunks())


def test_fairseqs_arguments_are_read_beside_the_tensors() -> None:
    pickled = read_pickle(golden("sofa/veco_nlg/model.pt"))
    assert isinstance(pickled.others["args"], argparse.Namespace)
    assert pickled.tensors["encoder.embed_tokens.weight"].shape == (425, 32)
