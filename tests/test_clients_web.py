"""Clients that are not Python pull from `hubcache serve`, offline and pull-through, and get upstream's bytes.

What a client keeps is read again without the mirror.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from huggingface_hub import hf_hub_download
from tokenizers import Tokenizer

from hubcache.demo.models import tiny_bert, vocabulary
from tests.support.clients import OFFLINE, PULLING, Case, recorded
from tests.support.commandline import CommandLine, Ran, files_of, run
from tests.support.httpd import Body, body_hex
from tests.support.hubrepo import HubFile
from tests.support.loophub import LoopHub
from tests.support.programs import program
from tests.support.serving import Served
from tests.support.webclients import Node, Page, lookup_model

pytestmark = pytest.mark.slow

TRANSFORMERS = Case("@huggingface/transformers", "config, tokenizer and ONNX pipeline in Node; again from its cache")
HUB = Case("@huggingface/hub", "list, info, download and snapshot in Node; again from its cache")
PAGE = Case("Chromium", "a page of another origin runs both npm clients; the tokenizer again from the browser's cache")
HEAD = Case("curl", "HEAD")
GET = Case("curl", "GET")
RANGE = Case("curl", "a range")
RANGES = Case("curl", "several ranges in one request")
UNCHANGED = Case("curl", "If-None-Match")
RESUME = Case("curl", "resume with -C -")
WHOLE = Case("curl", "-C - of a whole file")
WGET = Case("wget", "GET")
WGET_RESUME = Case("wget", "resume with -c")
WGET_WHOLE = Case("wget", "-c of a whole file")
ARIA2 = Case("aria2c", "50 MB with -x8 -s8")
CURL = [HEAD, GET, RANGE, RANGES, UNCHANGED, RESUME, WHOLE]
CASES = [TRANSFORMERS, HUB, PAGE, *CURL, WGET, WGET_RESUME, WGET_WHOLE, ARIA2]

NODE_REPO, HUB_REPO, PAGE_REPO, FILES, BIG = "js/transformers", "js/hub", "js/page", "tools/files", "tools/big"
SENTENCE = "A small model that loads without a network!"
SIZE = 3_000_001
SPANS = [
    ("start.bin", "0-999", slice(0, 1000)),
    ("middle.bin", "1000000-1999999", slice(1_000_000, 2_000_000)),
    ("end.bin", "-1000", slice(-1000, None)),
]
# Each is asked for by one test alone: with pull-through, it is cold then.
NAMES = [
    *("head", "get", "start", "middle", "end", "ranges", "unchanged", "resume", "whole"),
    *("wget", "wget-resume", "wget-whole"),
]


@dataclass(frozen=True)
class World:
    """A running server and the upstream whose repos it serves, each client's own."""

    mode: str
    endpoint: str
    upstream: LoopHub
    commits: Mapping[str, str]

    def url(self, name: str, repo: str = FILES) -> str:
        """Return where a file is served."""
        return f"{self.endpoint}/{repo}/resolve/main/{name}"

    def file(self, name: str, repo: str = FILES) -> HubFile:
        """Return a file as upstream has it."""
        return self.upstream.files(repo)[name]


def bodies() -> dict[str, Mapping[str, Body]]:
    """Make the repos: a model with an ONNX file for each JavaScript client, files for the others."""
    random = Random(6)
    table = [[id_ / 1000, 1.0, -id_ / 500, 0.5] for id_ in range(len(vocabulary()))]
    model: dict[str, Body] = {**tiny_bert(6), "onnx/model.onnx": lookup_model(table), "empty.txt": b""}
    files: dict[str, Body] = {f"{name}.bin": random.randbytes(SIZE) for name in NAMES}
    big: dict[str, Body] = {"big.bin": random.randbytes(50_000_000)}
    return {NODE_REPO: model, HUB_REPO: model, PAGE_REPO: model, FILES: files, BIG: big}


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Node:
    return Node(tmp_path_factory.mktemp("node"))


@pytest.fixture(scope="module", params=[OFFLINE, PULLING])
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, upstream = tmp_path_factory.mktemp("served"), LoopHub()
    commits = {name: upstream.add_repo(name, files) for name, files in bodies().items()}
    with upstream:
        if request.param == OFFLINE:
            pulled = CommandLine(folder, HF_ENDPOINT=upstream.endpoint)("pull", *commits)
            assert pulled.code == 0, pulled.err
            upstream.stop()
            served = Served(folder, "--offline")
        else:
            served = Served(folder, HF_ENDPOINT=upstream.endpoint)
        with served:
            yield World(request.param, served.endpoint, upstream, commits)


def tool(name: str, *arguments: str | Path, package: str | None = None) -> Ran:
    """Run a program under an environment that knows no proxy and no settings of this user."""
    command = (str(program(name, package=package)), *map(str, arguments))
    return run(*command, timeout=60, PATH=os.environ["PATH"], HOME="/nowhere")


def version(name: str, *, package: str | None = None) -> str:
    """Return what a program says its version is."""
    found = re.search(r"\d+(\.\d+)+", tool(name, "--version", package=package).out)
    assert found is not None
    return found[0]


def curl(url: str, *arguments: str | Path) -> str:
    """Run curl, which has to succeed; return what it printed."""
    ran = tool("curl", "-q", "-sS", *arguments, url)
    assert ran.code == 0, ran.err
    return ran.out


def headers_of(text: str) -> dict[str, str]:
    """Read the headers of one answer, names in lower case."""
    lines = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name.lower(): value.strip() for name, _, value in lines}


def content(file: HubFile) -> bytes:
    """Return a file's bytes, which are in memory here."""
    assert isinstance(file.body, bytes)
    return file.body


def hashes(files: Mapping[str, HubFile]) -> dict[str, str]:
    """Return the sha256 of each file."""
    return {path: body_hex(file.body, "sha256") for path, file in files.items()}


def expected(files: Mapping[str, HubFile]) -> tuple[list[int], Any]:
    """Return the sentence's token ids, by the tokenizers library, and the mean of their rows in the ONNX file."""
    ids = Tokenizer.from_str(content(files["tokenizer.json"]).decode()).encode(SENTENCE).ids
    mean = sum(ids) / len(ids)
    return ids, pytest.approx([mean / 1000, 1.0, -mean / 500, 0.5], rel=1e-4)


def test_transformers_js_answers_as_the_files_upstream_say_and_again_from_its_cache_alone(
    world: World, node: Node, tmp_path: Path
) -> None:
    upstream = world.upstream.files(NODE_REPO)
    with recorded(TRANSFORMERS, world.mode, node.version(TRANSFORMERS.client)):
        online = node("transformers.mjs", world.endpoint, tmp_path, NODE_REPO, SENTENCE)
        assert (online["type"], (online["ids"], online["features"])) == ("bert", expected(upstream))
        kept = {path: sha256(body).hexdigest() for path, body in files_of(tmp_path / NODE_REPO).items()}
        assert {"tokenizer.json", "tokenizer_config.json", "config.json", "onnx/model.onnx"} == kept.keys()
        assert kept.items() <= hashes(upstream).items()
        assert node("transformers.mjs", "", tmp_path, NODE_REPO, SENTENCE) == online


def test_hub_js_lists_and_downloads_what_upstream_has(world: World, node: Node, tmp_path: Path) -> None:
    upstream = world.upstream.files(HUB_REPO)
    commit = world.commits[HUB_REPO]
    with recorded(HUB, world.mode, node.version(HUB.client)):
        seen = node("hub.mjs", world.endpoint, tmp_path, HUB_REPO)
        assert seen["listed"] == {path: file.size for path, file in upstream.items()}
        assert seen["downloaded"] == hashes(upstream)
        assert (seen["sha"], seen["lastCommit"]) == (commit, commit)
        assert (seen["hasConfig"], seen["hasNothing"], seen["missing"]) == (True, False, None)
        assert Path(seen["snapshot"]) == tmp_path / "models--js--hub" / "snapshots" / commit
        again = node("cached.mjs", tmp_path, HUB_REPO, commit, *upstream)
        assert again == {"files": hashes(upstream), "refs": ["main"]}
        paths = {path: hf_hub_download(HUB_REPO, path, cache_dir=tmp_path, local_files_only=True) for path in upstream}
        assert {path: body_hex(Path(kept), "sha256") for path, kept in paths.items()} == hashes(upstream)


def test_a_page_of_another_origin_loads_a_tokenizer_and_runs_a_model(world: World, node: Node, tmp_path: Path) -> None:
    upstream = world.upstream.files(PAGE_REPO)
    with recorded(PAGE, world.mode, version("chromium")):
        seen = Page(node.packages).open(tmp_path, host=world.endpoint, repo=PAGE_REPO, sentence=SENTENCE)
        assert "error" not in seen, seen["error"]
        ids, features = expected(upstream)
        assert (seen["transformers"]["ids"], seen["transformers"]["features"]) == (ids, features)
        assert seen["transformers"]["idsFromCache"] == ids
        assert seen["hub"] == {
            "listed": {path: file.size for path, file in upstream.items()},
            "configSize": upstream["config.json"].size,
            "etag": f'"{upstream["model.safetensors"].sha256}"',
            "sha256": upstream["model.safetensors"].sha256,
            "missing": None,
        }


def test_curl_head_tells_commit_digest_size_and_that_ranges_are_served(world: World) -> None:
    with recorded(HEAD, world.mode, version("curl")):
        headers = headers_of(curl(world.url("head.bin"), "-f", "-I"))
        file = world.file("head.bin")
        told = [headers[name] for name in ("x-repo-commit", "etag", "content-length", "accept-ranges")]
        assert told == [world.commits[FILES], f'"{file.etag}"', str(SIZE), "bytes"]


def test_curl_gets_the_file(world: World, tmp_path: Path) -> None:
    with recorded(GET, world.mode, version("curl")):
        curl(world.url("get.bin"), "-f", "-o", tmp_path / "got")
        assert (tmp_path / "got").read_bytes() == content(world.file("get.bin"))


def test_curl_gets_the_ranges_it_asks(world: World, tmp_path: Path) -> None:
    with recorded(RANGE, world.mode, version("curl")):
        for name, asked, part in SPANS:
            status = curl(world.url(name), "-f", "-r", asked, "-o", tmp_path / name, "-w", "%{http_code}")
            assert (status, (tmp_path / name).read_bytes()) == ("206", content(world.file(name))[part])


def test_curl_gets_several_ranges_as_parts_of_one_answer(world: World, tmp_path: Path) -> None:
    with recorded(RANGES, world.mode, version("curl")):
        spans = ("-r", "0-99,1500000-1500999,-10")
        curl(world.url("ranges.bin"), "-f", *spans, "-D", tmp_path / "headers", "-o", tmp_path / "got")
        kind = headers_of((tmp_path / "headers").read_text())["content-type"]
        whole = content(world.file("ranges.bin"))
        assert parts_of(kind, (tmp_path / "got").read_bytes()) == [
            (f"bytes 0-99/{SIZE}", whole[:100]),
            (f"bytes 1500000-1500999/{SIZE}", whole[1_500_000:1_501_000]),
            (f"bytes {SIZE - 10}-{SIZE - 1}/{SIZE}", whole[-10:]),
        ]


def parts_of(kind: str, body: bytes) -> list[tuple[str, bytes]]:
    """Take a multipart/byteranges body apart: each part's Content-Range and content (RFC 9110, section 14.6)."""
    found = re.fullmatch(r'multipart/byteranges; *boundary="?([^"]+)"?', kind)
    assert found is not None, kind
    mark = b"\r\n--" + found[1].encode()
    *parts, end = (b"\r\n" + body).split(mark)[1:]
    assert end.strip() == b"--"
    heads = (part.partition(b"\r\n\r\n") for part in parts)
    return [(headers_of(head.decode())["content-range"], content) for head, _, content in heads]


def test_curl_is_told_that_nothing_changed(world: World, tmp_path: Path) -> None:
    with recorded(UNCHANGED, world.mode, version("curl")):
        url, etag = world.url("unchanged.bin"), tmp_path / "etag"
        curl(url, "-f", "--etag-save", etag, "-o", tmp_path / "got")
        told = curl(url, "-f", "--etag-compare", etag, "-o", tmp_path / "again", "-w", "%{http_code} %{size_download}")
        assert told == "304 0"


def test_curl_resumes_where_it_stopped(world: World, tmp_path: Path) -> None:
    with recorded(RESUME, world.mode, version("curl")):
        whole, got = content(world.file("resume.bin")), tmp_path / "got"
        got.write_bytes(whole[:1_234_567])
        loaded = curl(world.url("resume.bin"), "-f", "-C", "-", "-o", got, "-w", "%{size_download}")
        assert (loaded, got.read_bytes()) == (str(SIZE - 1_234_567), whole)


def test_curl_resumes_a_whole_file_by_leaving_it(world: World, tmp_path: Path) -> None:
    with recorded(WHOLE, world.mode, version("curl")):
        whole, got = content(world.file("whole.bin")), tmp_path / "got"
        got.write_bytes(whole)
        status = curl(world.url("whole.bin"), "-C", "-", "-o", got, "-w", "%{http_code}")
        assert (status, got.read_bytes()) == ("416", whole)


def test_wget_gets_the_file(world: World, tmp_path: Path) -> None:
    with recorded(WGET, world.mode, version("wget")):
        ran = tool("wget", "-nv", "-O", tmp_path / "got", world.url("wget.bin"))
        assert ran.code == 0, ran.err
        assert (tmp_path / "got").read_bytes() == content(world.file("wget.bin"))


def test_wget_resumes_where_it_stopped(world: World, tmp_path: Path) -> None:
    with recorded(WGET_RESUME, world.mode, version("wget")):
        whole, got = content(world.file("wget-resume.bin")), tmp_path / "got"
        got.write_bytes(whole[:1_234_567])
        ran = tool("wget", "-nv", "-c", "-O", got, world.url("wget-resume.bin"))
        assert ran.code == 0, ran.err
        assert got.read_bytes() == whole


def test_wget_resumes_a_whole_file_by_leaving_it(world: World, tmp_path: Path) -> None:
    with recorded(WGET_WHOLE, world.mode, version("wget")):
        whole, got = content(world.file("wget-whole.bin")), tmp_path / "got"
        got.write_bytes(whole)
        ran = tool("wget", "-nv", "-c", "-O", got, world.url("wget-whole.bin"))
        assert ran.code == 0, ran.err
        assert got.read_bytes() == whole


def test_aria2_gets_a_file_over_eight_connections(world: World, tmp_path: Path) -> None:
    with recorded(ARIA2, world.mode, version("aria2c", package="aria2")):
        options = ("-x8", "-s8", "-k1M", "--no-conf", "--file-allocation=none", f"--dir={tmp_path}", "--out=got")
        ran = tool("aria2c", *options, world.url("big.bin", BIG), package="aria2")
        assert ran.code == 0, ran.out
        assert body_hex(tmp_path / "got", "sha256") == world.file("big.bin", BIG).sha256
