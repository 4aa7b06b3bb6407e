"""The demo's models load and its upstream speaks three protocols; the command that uses them is tested elsewhere."""

from __future__ import annotations

import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse
from math import prod
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hubcache.core.digests import digest_bytes
from hubcache.demo.models import SENTENCES, tarball, tiny_bert, zoo_model
from hubcache.demo.upstream import DemoUpstream

WEIGHTS = "model.safetensors"


def run_python(script: str, *arguments: str, **environment: str) -> Any:
    """Run a script in a process that knows no proxy, hub or cache of ours; parse the JSON it prints."""
    quiet = {"PATH": os.environ["PATH"], "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", script, *arguments]
    done = subprocess.run(command, env=quiet | environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_seed_gives_the_same_few_bytes_every_time() -> None:
    one, two = tiny_bert(7), tiny_bert(7)
    assert one == two
    assert sum(map(len, one.values())) < 200_000


def test_two_seeds_differ_in_weights_and_card_alone() -> None:
    one, two = tiny_bert(1), tiny_bert(2)
    assert {name for name in one if one[name] != two[name]} == {WEIGHTS, "README.md"}


def test_the_tensors_fill_the_aligned_safetensors_file_without_a_hole() -> None:
    content = tiny_bert(1)[WEIGHTS]
    length = struct.unpack_from("<Q", content)[0]
    header = json.loads(content[8 : 8 + length])
    assert (length % 8, header.pop("__metadata__")) == (0, {"format": "pt"})
    end = 0
    for tensor in sorted(header.values(), key=lambda row: row["data_offsets"]):
        assert tensor["data_offsets"] == [end, end + 4 * prod(tensor["shape"])]
        end = tensor["data_offsets"][1]
    assert end == len(content) - 8 - length


def test_a_tarball_wraps_its_files_in_one_folder() -> None:
    with tarfile.open(fileobj=io.BytesIO(tarball({"a.txt": b"1", "sub/b.txt": b"2"}, "top"))) as archive:
        assert archive.getnames() == ["top", "top/a.txt", "top/sub/b.txt"]


LOAD = """
import io, json, sys, tarfile
import numpy, torch, transformers
report = {}
for folder, auto in ((sys.argv[1], "AutoModel"), (sys.argv[2], "AutoModelForSequenceClassification")):
    model, info = getattr(transformers, auto).from_pretrained(folder, output_loading_info=True)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer("The Quick brown fox, 42 zyzzyvas & a model!", "Really?", return_tensors="pt")
    with torch.no_grad():
        output = model.eval()(**encoded)[0]
    ids = encoded["input_ids"][0]
    report[type(model).__name__] = {
        "problems": [str(key) for kind in info for key in info[kind]],
        "tokens": tokenizer.convert_ids_to_tokens(ids),
        "segments": encoded["token_type_ids"][0].tolist(),
        "decoded": tokenizer.decode(ids, skip_special_tokens=True),
        "finite": bool(torch.isfinite(output).all()),
        "shape": list(output.shape),
    }
with tarfile.open(sys.argv[3]) as archive:
    sample = numpy.load(io.BytesIO(archive.extractfile("sample-inputs/inp-0000.npz").read()))
    report["sample"] = {name: [str(sample[name].dtype), sample[name].tolist()] for name in sample.files}
report["ours"] = {name: ["int64", ids] for name, ids in tokenizer(sys.argv[4]).items()}
print(json.dumps(report))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Load both kinds of checkpoint once, in the one process here that imports torch."""
    root = tmp_path_factory.mktemp("checkpoints")
    for folder, files in (("encoder", tiny_bert(1)), ("zoo", zoo_model(2))):
        for path, content in files.items():
            target = root / folder / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    places = [str(root / name) for name in ("encoder", "zoo/training", "zoo/sample-inputs.tar.gz")]
    return run_python(LOAD, *places, SENTENCES[0], HF_HUB_OFFLINE="1", HF_HOME=str(root / "home"))


@pytest.mark.train
@pytest.mark.xdist_group("demo-checkpoints")
class TestLoaded:
    @pytest.mark.parametrize(
        ("architecture", "shape"), [("BertModel", [1, 25, 32]), ("BertForSequenceClassification", [1, 2])]
    )
    def test_no_key_is_missing_and_the_answer_is_finite(self, loaded: Any, architecture: str, shape: list[int]) -> None:
        report = loaded[architecture]
        assert (report["problems"], report["finite"], report["shape"]) == ([], True, shape)

    def test_the_tokenizer_knows_any_plain_text_and_frames_it_as_bert_wants_it(self, loaded: Any) -> None:
        tokens, segments = loaded["BertModel"]["tokens"], loaded["BertModel"]["segments"]
        assert "[UNK]" not in tokens
        assert tokens[:5] == ["[CLS]", "the", "quick", "brown", "fox"]
        second = tokens.index("[SEP]") + 1
        assert segments == [0] * second + [1] * (len(tokens) - second)
        assert loaded["BertModel"]["decoded"] == "the quick brown fox, 42 zyzzyvas & a model! really?"

    def test_numpy_reads_the_zoo_sample_and_the_tokenizer_agrees_with_it(self, loaded: Any) -> None:
        assert loaded["sample"] == loaded["ours"]


class Client:
    """One kept-alive connection."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.connection = HTTPConnection(urlsplit(endpoint).netloc, timeout=10)

    def ask(self, method: str, path: str, sent: bytes | None = None, **headers: str) -> tuple[HTTPResponse, bytes]:
        dashed = {name.replace("_", "-"): value for name, value in headers.items()}
        self.connection.request(method, path.removeprefix(self.endpoint), sent, dashed)
        response = self.connection.getresponse()
        return response, response.read()

    def get(self, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        return self.ask("GET", path, None, **headers)

    def query(self, text: str) -> Any:
        return json.loads(self.ask("POST", "/v2/graphql", json.dumps({"query": text}).encode())[1])


@pytest.fixture(scope="module")
def upstream() -> Iterator[DemoUpstream]:
    with DemoUpstream() as running:
        yield running


@pytest.fixture
def client(upstream: DemoUpstream) -> Iterator[Client]:
    opened = Client(upstream.endpoint)
    yield opened
    opened.connection.close()


HUB = "/hubcache-demo/tiny-bert"


def test_the_tree_names_every_file_by_its_digest(upstream: DemoUpstream, client: Client) -> None:
    rows = json.loads(client.get(f"/api/models{HUB}/tree/{upstream.hub_commit}?recursive=true&expand=false")[1])
    named = {row["path"]: row.get("lfs", row)["oid"] for row in rows}
    digests = {name: digest_bytes("git-sha1", body).hex for name, body in tiny_bert(1).items()}
    assert named == digests | {WEIGHTS: hashlib.sha256(tiny_bert(1)[WEIGHTS]).hexdigest()}


def test_resolve_sends_the_bytes_with_commit_and_quoted_etag(upstream: DemoUpstream, client: Client) -> None:
    answer, body = client.get(f"{HUB}/resolve/{upstream.hub_commit}/{WEIGHTS}")
    assert body == tiny_bert(1)[WEIGHTS]
    assert answer.headers["X-Repo-Commit"] == upstream.hub_commit
    assert answer.headers["ETag"] == f'"{hashlib.sha256(body).hexdigest()}"'


def test_head_tells_the_size_and_sends_nothing(client: Client) -> None:
    answer, body = client.ask("HEAD", f"{HUB}/resolve/main/{WEIGHTS}")
    assert (answer.status, body) == (200, b"")
    assert int(answer.headers["Content-Length"]) == len(tiny_bert(1)[WEIGHTS])


@pytest.mark.parametrize(
    ("asked", "status", "place", "part"),
    [
        ("bytes=0-9", 206, "bytes 0-9/2073", slice(0, 10)),
        ("bytes=-5", 206, "bytes 2068-2072/2073", slice(-5, None)),
        ("bytes=0-2073", 206, "bytes 0-2072/2073", slice(None)),  # sparsezoo asks for one byte too many
        ("bytes=2073-", 416, "bytes */2073", slice(0, 0)),
        ("bytes=0-1,4-5", 200, None, slice(None)),
    ],
)
def test_one_range_is_cut_out(client: Client, asked: str, status: int, place: str | None, part: slice) -> None:
    answer, body = client.get(f"{HUB}/resolve/main/vocab.txt", range=asked)
    assert (answer.status, answer.headers["Content-Range"]) == (status, place)
    assert body == tiny_bert(1)["vocab.txt"][part]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/models/somebody/else", "RepoNotFound"),
        ("/gpt2/resolve/main/config.json", "RepoNotFound"),
        (f"/api/models{HUB}/revision/v9", "RevisionNotFound"),
        (f"{HUB}/resolve/v9/config.json", "RevisionNotFound"),
        (f"{HUB}/resolve/main/nothing.bin", "EntryNotFound"),
        (f"/api/models{HUB}/tree/main/folder", "EntryNotFound"),
    ],
)
def test_a_404_says_what_is_missing(upstream: DemoUpstream, client: Client, path: str, code: str) -> None:
    answer, _ = client.get(path)
    assert (answer.status, answer.headers["X-Error-Code"]) == (404, code)
    assert answer.headers["X-Repo-Commit"] == (upstream.hub_commit if code == "EntryNotFound" else None)


V1 = """{ models (domain: "nlp",task: "sentiment_analysis",architecture: "tinybert",subArchitecture: "demo",
  framework: "pytorch",repo: "huggingface",sourceDataset: "sst2",sparseTag: "base-none",)
  { modelId files(version: 2) { displayName downloadUrl fileSize fileType md5 } benchmarkResults { batchSize }
    repoName repoNamespace } }"""


def test_the_zoo_finds_its_model_by_the_stub_arguments(client: Client) -> None:
    (model,) = client.query(V1)["data"]["models"]
    assert {row["displayName"] for row in model["files"]} == set(zoo_model(2))
    assert {row["fileType"] for row in model["files"]} == {"training", "deployment", "card", "recipe", "inputs"}


def test_the_zoo_finds_nothing_by_other_arguments(client: Client) -> None:
    assert client.query(V1.replace("sst2", "mnli")) == {"data": {"models": []}}


def test_the_zoo_tells_the_md5_only_when_asked(client: Client) -> None:
    (model,) = client.query(V1.replace("md5", ""))["data"]["models"]
    assert "md5" not in model["files"][0]


def test_every_zoo_file_has_the_size_and_md5_that_its_row_says(client: Client) -> None:
    (model,) = client.query(V1)["data"]["models"]
    for row in model["files"]:
        _, body = client.get(row["downloadUrl"])
        assert (len(body), hashlib.md5(body).hexdigest()) == (row["fileSize"], row["md5"])


@pytest.mark.parametrize("path", ["/v2/models/none/files/training/optimizer.pt?version=2", "/models/other.tar.gz"])
def test_an_unknown_zoo_file_or_object_has_no_length(client: Client, path: str) -> None:
    answer, _ = client.ask("HEAD", path)
    assert (answer.status, answer.headers["Content-Length"]) == (404, "0")


@pytest.mark.parametrize("sent", [b"", b"[]", b"{}", b"not json", b'{"query": "{ users { name } }"}'])
def test_what_is_no_query_is_answered_with_errors(client: Client, sent: bytes) -> None:
    assert b'"errors"' in client.ask("POST", "/v2/graphql", sent)[1]


def test_the_tarball_is_a_checkpoint_with_its_md5_for_etag(upstream: DemoUpstream, client: Client) -> None:
    answer, body = client.get(urlsplit(upstream.tarball_url).path)
    assert answer.headers["ETag"] == f'"{hashlib.md5(body).hexdigest()}"'
    assert body == tarball(tiny_bert(3), "tiny-bert")


def test_an_unchanged_object_is_a_304_without_a_body(upstream: DemoUpstream, client: Client) -> None:
    tag = client.get(urlsplit(upstream.tarball_url).path)[0].headers["ETag"]
    answer, body = client.get(urlsplit(upstream.tarball_url).path, If_None_Match=tag)
    assert (answer.status, body) == (304, b"")


def test_a_range_of_another_version_gets_the_whole_object(upstream: DemoUpstream, client: Client) -> None:
    assert client.get(urlsplit(upstream.tarball_url).path, Range="bytes=5-9", If_Range='"older"')[0].status == 200


def test_requests_and_bytes_are_counted_and_one_connection_serves_them(upstream: DemoUpstream, client: Client) -> None:
    before = (upstream.requests, upstream.bytes_sent)
    size = len(client.get(f"{HUB}/resolve/main/vocab.txt")[1])
    socket = client.connection.sock
    client.ask("HEAD", f"{HUB}/resolve/main/{WEIGHTS}")
    assert (upstream.requests, upstream.bytes_sent) == (before[0] + 2, before[1] + size)
    assert client.connection.sock is socket


def test_after_stop_nobody_answers_on_an_old_or_a_new_connection() -> None:
    with DemoUpstream() as upstream:
        client = Client(upstream.endpoint)
        client.get(f"/api/models{HUB}")
    for connection in (client, Client(upstream.endpoint)):
        with pytest.raises(ConnectionError):
            connection.get(f"/api/models{HUB}")


def test_an_upstream_that_never_started_can_be_stopped() -> None:
    DemoUpstream().stop()


DOWNLOAD = "import json, sys, huggingface_hub as hub; print(json.dumps(hub.snapshot_download(sys.argv[1])))"


def test_huggingface_hub_downloads_the_whole_repo(upstream: DemoUpstream, tmp_path: Path) -> None:
    folder = run_python(DOWNLOAD, upstream.hub_reference, HF_ENDPOINT=upstream.endpoint, HF_HOME=str(tmp_path))
    assert Path(folder).name == upstream.hub_commit
    assert {path.name: path.read_bytes() for path in Path(folder).iterdir()} == tiny_bert(1)
