"""Good archives come out whole, broken ones never pass for good; attacks are in the other test_unpack files."""

from __future__ import annotations

import gzip
import io
import shutil
import subprocess
import tarfile
import tracemalloc
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubcache.core.artifact import RepoPath
from hubcache.errors import BadReference, HubcacheError, IntegrityError, UsageError
from hubcache.unpack import SUFFIXES, Limits, strip_wrapping, unpack
from tests.support.archives import Dribble, compress, pack, read, tar

LONG = "/".join(["a folder with a name of some length"] * 6) + "/model.safetensors"
FILES = {
    "config.json": b'{"model_type": "bert"}',
    "empty": b"",
    "onnx/model.onnx": bytes(range(256)) * 500,
    "onnx/가나다.txt": "내용".encode(),
    LONG: b"w" * 513,
}
SHORT = {path: content for path, content in FILES.items() if path != LONG}
TAR_SUFFIXES = [suffix for suffix in SUFFIXES if suffix != ".zip"]
PROGRAMS = {".tar.gz": "gzip", ".tar.bz2": "bzip2", ".tar.xz": "xz", ".tar.zst": "zstd"}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_gives_back_what_went_in(suffix: str) -> None:
    assert read(pack(FILES, suffix), suffix) == FILES


@pytest.mark.parametrize("most", [1, 7, 511, 65537])
@pytest.mark.parametrize("suffix", TAR_SUFFIXES[::2])
def test_a_tar_may_arrive_in_portions_of_any_size(suffix: str, most: int) -> None:
    assert read(Dribble(pack(SHORT, suffix), most), suffix) == SHORT


def _write(files: dict[str, bytes], folder: Path) -> None:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "v7"])
def test_what_the_tar_command_writes_is_read(form: str, tmp_path: Path) -> None:
    files = SHORT if form == "v7" else FILES
    _write(files, tmp_path)
    made = subprocess.run(["tar", f"--format={form}", "-c", "-C", tmp_path, "."], check=True, capture_output=True)
    assert read(made.stdout, ".tar") == files


@pytest.mark.parametrize("suffix", PROGRAMS)
def test_what_the_compressing_commands_write_is_read(suffix: str) -> None:
    program = shutil.which(PROGRAMS[suffix])
    if program is None:
        pytest.skip(f"no {PROGRAMS[suffix]} here")
    packed = subprocess.run([program, "-c"], input=tar(FILES), check=True, capture_output=True).stdout
    assert read(packed, suffix) == FILES


@pytest.mark.parametrize("suffix", TAR_SUFFIXES[1:])
def test_compressed_streams_one_after_another_are_one_archive(suffix: str) -> None:
    content = tar(FILES)
    middle = len(content) // 2
    assert read(compress(content[:middle], suffix) + compress(content[middle:], suffix), suffix) == FILES


@pytest.mark.parametrize("suffix", TAR_SUFFIXES[1:])
def test_zeros_behind_a_compressed_stream_are_padding(suffix: str) -> None:
    assert read(pack(FILES, suffix) + bytes(1000), suffix) == FILES


def test_a_skippable_zstd_frame_is_skipped() -> None:
    frame = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"
    assert read(frame + pack(FILES, ".tar.zst") + frame, ".tar.zst") == FILES


@pytest.mark.parametrize("suffix", TAR_SUFFIXES)
def test_what_follows_the_end_marker_of_a_tar_is_ignored(suffix: str) -> None:
    assert read(compress(tar(FILES) + b"garbage" * 1000, suffix), suffix) == FILES


def test_old_signed_checksums_are_read() -> None:
    block = bytearray(tar({"ä": b""}, tarfile.GNU_FORMAT))
    total = sum(block[:512]) - sum(block[148:156]) + 256
    block[148:156] = b"%06o\0 " % (total - 256 * 2)
    assert read(bytes(block), ".tar") == {"ä": b""}


def test_zip_members_written_to_a_pipe_are_read() -> None:
    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

        def tell(self) -> int:
            raise io.UnsupportedOperation

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", b"descriptor behind the content")
    assert read(pipe.getvalue(), ".zip") == {"a": b"descriptor behind the content"}


def test_zip64_sizes_counts_and_offsets_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 3)
    archive = bytearray(pack(FILES, ".zip"))
    for at, full in ((-14, 2), (-12, 2), (-10, 4), (-6, 4)):  # both counts, size, offset: see the zip64 record
        archive[at : at + full] = b"\xff" * full
    assert read(bytes(archive), ".zip") == FILES


@pytest.mark.skipif(shutil.which("zip") is None, reason="no zip here")
def test_what_the_zip_command_streams_is_read(tmp_path: Path) -> None:
    _write(SHORT, tmp_path)
    made = subprocess.run(["zip", "-q", "-r", "-", "."], cwd=tmp_path, check=True, capture_output=True)
    assert read(made.stdout, ".zip") == SHORT


def test_folders_and_macos_litter_are_not_files() -> None:
    litter = {"._a": b"x", "d/._b": b"x", "d/.DS_Store": b"x", "__MACOSX/d/c": b"x"}
    for suffix in (".tar", ".zip"):
        assert read(pack({**litter, "d/file": b"1", "._kept.d/file": b"2"}, suffix), suffix) == {
            "d/file": b"1",
            "._kept.d/file": b"2",
        }


def test_chunks_hold_at_most_one_mebibyte() -> None:
    for suffix in SUFFIXES:
        for _, chunks in unpack(io.BytesIO(pack({"a": bytes(5 << 20)}, suffix)), suffix):
            assert max(len(chunk) for chunk in chunks) <= 1 << 20


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_content_left_unread_is_gone_but_the_next_is_whole(suffix: str) -> None:
    unread = list(unpack(io.BytesIO(pack({"a": b"1", "b": b"2"}, suffix)), suffix))
    with pytest.raises(UsageError, match="'a'"):
        next(unread[0][1])
    later = [
        b"".join(chunks) for member, chunks in unpack(io.BytesIO(pack(FILES, suffix)), suffix) if member.size > 513
    ]
    assert later == [FILES["onnx/model.onnx"]]


def test_a_failure_the_reader_swallowed_still_ends_the_iteration() -> None:
    broken = bytearray(pack({"a": b"content", "b": b""}, ".zip"))
    broken[broken.index(b"a", 26) + 3] ^= 0xFF
    members = unpack(io.BytesIO(bytes(broken)), ".zip")
    with pytest.raises(IntegrityError):
        list(next(members)[1])
    with pytest.raises(IntegrityError, match="'a'"):
        next(members)


def test_an_unknown_suffix_is_refused_before_anything_is_read() -> None:
    with pytest.raises(BadReference, match=r"\.rar"):
        unpack(io.BytesIO(), ".rar")


def test_a_zip_that_cannot_seek_is_refused_before_anything_is_read() -> None:
    with pytest.raises(UsageError, match="local file"):
        unpack(Dribble(pack(FILES, ".zip"), 100), ".zip")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_without_files_is_refused(suffix: str) -> None:
    for files in ({}, {"._litter": b""}):
        with pytest.raises(IntegrityError, match="no files"):
            read(pack(files, suffix), suffix)


def test_one_wrapping_folder_is_stripped_and_only_one() -> None:
    paths = [RepoPath("top/in/a"), RepoPath("top/in/b")]
    assert strip_wrapping(paths) == {"top/in/a": "in/a", "top/in/b": "in/b"}


@pytest.mark.parametrize("paths", [["a"], ["a/x", "b/x"], ["a/x", "b"], ["a/x", "ab/x"]])
def test_without_one_wrapping_folder_paths_stay(paths: list[RepoPath]) -> None:
    assert strip_wrapping(paths) == {path: path for path in paths}


def test_stripping_nothing_is_refused() -> None:
    with pytest.raises(IntegrityError):
        strip_wrapping([])


def test_memory_stays_bounded() -> None:
    head = tarfile.TarInfo("zeros")
    head.size = 200 << 20
    mebibyte = gzip.compress(bytes(1 << 20))
    archive = io.BytesIO(gzip.compress(head.tobuf()) + mebibyte * 200 + gzip.compress(bytes(1024)))
    tracemalloc.start()
    try:
        sizes = [sum(map(len, chunks)) for _, chunks in unpack(archive, ".tar.gz", limits=Limits(ratio=10**6))]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert sizes == [200 << 20]
    assert peak < 16 << 20


def _cuts(archive: bytes) -> Iterator[bytes]:
    step = max(1, len(archive) // 400)
    return (archive[:end] for end in range(0, len(archive), step))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_archive_cut_off_anywhere_never_passes_for_whole(suffix: str) -> None:
    for cut in _cuts(pack(SHORT, suffix)):
        try:
            assert read(cut, suffix) == SHORT
        except IntegrityError:
            continue
        assert suffix == ".tar"  # cut within the zeros at its end


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=50, deadline=None)
@given(garbage=st.binary(max_size=2000))
def test_garbage_is_refused(suffix: str, garbage: bytes) -> None:
    with pytest.raises(HubcacheError):
        read(garbage, suffix)


EDITS = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(max_size=4), st.integers(0, 4)), min_size=1, max_size=4)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=150, deadline=None)
@given(edits=EDITS)
def test_a_damaged_archive_is_refused_or_whole(suffix: str, edits: list[tuple[int, bytes, int]]) -> None:
    files = {"a": b"one", "d/b": b"two" * 300}
    archive = bytearray(pack(files, suffix))
    for place, new, dropped in edits:
        at = place % len(archive) if archive else 0
        archive[at : at + dropped] = new
    try:
        content = read(bytes(archive), suffix, Limits(total_bytes=1 << 24))
    except HubcacheError:
        return
    if suffix != ".tar":  # a bare tar has no checksum over its content
        assert content == files


@settings(max_examples=60, deadline=None)
@given(
    files=st.dictionaries(
        st.from_regex(r"([a-f0-9]{1,60}/){0,4}[g-z가-힣]{1,40}", fullmatch=True), st.binary(max_size=1500)
    ),
    form=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]),
)
def test_whatever_tarfile_writes_is_read_alike(files: dict[str, bytes], form: int) -> None:
    if files:
        assert read(tar(files, form), ".tar") == files
