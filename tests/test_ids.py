"""Right references, as people type and paste them; the wrong ones are test_ids_wrong.py's."""

from __future__ import annotations

import pytest

from hubcache.core.artifact import Kind, RepoId
from hubcache.core.ids import parse
from hubcache.core.reference import Reference
from hubcache.core.urls import ARCHIVE_SUFFIXES, archive_suffix
from hubcache.errors import BadReference

V1 = "nlp/sentiment_analysis/obert-base/pytorch/huggingface/sst2/pruned90_quant-none"
V2 = "obert-base-wikipedia_bookcorpus-pruned90"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
SHA256 = "0123456789abcdef" * 4
ALICE = "https://alice-open.oss-cn-zhangjiakou.aliyuncs.com"
MIRRORS = ("https://huggingface.co", "http://localhost:8080/hf/", "https://Mirror.Example/a/b", "http://hub")


def hub(name: str, kind: Kind = "model", revision: str = "main", path: str | None = None) -> Reference:
    return Reference("hf", name, RepoId("hf", kind, name), revision, path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gpt2", hub("gpt2")),
        ("org/name", hub("org/name")),
        ("  org/name\n", hub("org/name")),
        ("org/name@v1.0", hub("org/name", revision="v1.0")),
        ("org/name@feature/x/y", hub("org/name", revision="feature/x/y")),
        ("org/name@refs/pr/1", hub("org/name", revision="refs/pr/1")),
        (f"gpt2@{COMMIT}", hub("gpt2", revision=COMMIT)),
        ("gpt2@0123abc", hub("gpt2", revision="0123abc")),
        ("org/name@a%2Fb", hub("org/name", revision="a%2Fb")),
        ("org/name@v1@beta", hub("org/name", revision="v1@beta")),
        ("hf:gpt2", hub("gpt2")),
        ("HF:gpt2", hub("gpt2")),
        ("hf:org/name.tar.gz", hub("org/name.tar.gz")),
        ("hf:datasets/org/name@main", hub("org/name", "dataset")),
        ("hf:datasets/squad", hub("squad", "dataset")),
        ("hf:spaces/org/name", hub("org/name", "space")),
        ("hf:models/org/name", hub("org/name")),
        ("hf:models/datasets/x", hub("datasets/x")),
        ("hf:datasets", hub("datasets")),
        ("datasets/org/name", hub("org/name", "dataset")),
        ("spaces/org/name@v1", hub("org/name", "space", "v1")),
        ("models/org/name", hub("org/name")),
        # huggingface_hub reads these two as an org, too; with three parts there is no other reading.
        ("datasets/squad", hub("datasets/squad")),
        (V2, hub(V2)),
        ("a-b-c", hub("a-b-c")),
    ],
)
def test_hub_names(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/name", hub("org/name")),
        ("hf://org/name/", hub("org/name")),
        ("hf://gpt2", hub("gpt2")),
        ("hf://gpt2/", hub("gpt2")),
        ("hf://gpt2@main/config.json", hub("gpt2", path="config.json")),
        ("hf://org/name/config.json", hub("org/name", path="config.json")),
        ("hf://org/name/onnx/", hub("org/name", path="onnx/")),
        ("hf://org/name@v1", hub("org/name", revision="v1")),
        ("hf://org/name@feature%2Fx/a/b.json", hub("org/name", revision="feature/x", path="a/b.json")),
        ("hf://org/name@feature/x.json", hub("org/name", revision="feature", path="x.json")),
        ("hf://org/name@refs/pr/12/a.json", hub("org/name", revision="refs/pr/12", path="a.json")),
        ("hf://org/name@refs%2Fpr%2F12/a.json", hub("org/name", revision="refs/pr/12", path="a.json")),
        ("hf://datasets/org/name@refs/convert/parquet", hub("org/name", "dataset", "refs/convert/parquet")),
        ("hf://spaces/org/name/app.py", hub("org/name", "space", path="app.py")),
        ("hf://models/org/name/a%20b%23.txt", hub("org/name", path="a b#.txt")),
        ("hf://org/name/mail@home.txt", hub("org/name", path="mail@home.txt")),
    ],
)
def test_hub_files(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://huggingface.co/org/name", hub("org/name")),
        ("https://huggingface.co/org/name/", hub("org/name")),
        ("HTTPS://HuggingFace.CO/org/name?library=x#files", hub("org/name")),
        ("https://huggingface.co:443/gpt2", hub("gpt2")),
        ("http://huggingface.co/gpt2", hub("gpt2")),
        ("https://hf.co/org/name", hub("org/name")),
        ("huggingface.co/org/name", hub("org/name")),
        ("hf.co/datasets/squad", hub("squad", "dataset")),
        ("https://huggingface.co/spaces/org/name", hub("org/name", "space")),
        ("https://huggingface.co/models/org/name", hub("org/name")),
        ("https://huggingface.co/org/name/tree/main", hub("org/name")),
        ("https://huggingface.co/org/name/tree/v1/sub/sub2", hub("org/name", revision="v1", path="sub/sub2/")),
        ("https://huggingface.co/org/name/tree/feature%2Fx", hub("org/name", revision="feature/x")),
        ("https://huggingface.co/org/name/tree/refs/pr/1/sub", hub("org/name", revision="refs/pr/1", path="sub/")),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F1", hub("org/name", revision="refs/pr/1")),
        (
            "https://huggingface.co/datasets/squad/resolve/refs/convert/parquet/a/0.parquet?download=true",
            hub("squad", "dataset", "refs/convert/parquet", "a/0.parquet"),
        ),
        (f"https://huggingface.co/org/name/blob/{COMMIT}/a%20b.txt", hub("org/name", revision=COMMIT, path="a b.txt")),
        ("https://huggingface.co/org/name/raw/main/README.md", hub("org/name", path="README.md")),
        ("https://huggingface.co/gpt2/resolve/main/config.json", hub("gpt2", path="config.json")),
        ("https://huggingface.co/org/tree/tree/main/a", hub("org/tree", path="a/")),
        ("https://huggingface.co/org/name/resolve/main/x.tar.gz", hub("org/name", path="x.tar.gz")),
    ],
)
def test_hub_pages(text: str, expected: Reference) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8080/hf/org/name",
        "https://LOCALHOST:8080/hf/org/name/tree/main",
        "localhost:8080/hf/org/name",
        "https://mirror.example/a/b/org/name",
        "mirror.example/a/b/org/name",
        "http://hub/org/name",
    ],
)
def test_a_page_of_a_mirror_is_a_page_of_the_hub(text: str) -> None:
    assert parse(text, hub_urls=MIRRORS) == hub("org/name")


def test_beside_a_mirrors_path_there_are_files() -> None:
    assert parse("http://localhost:8080/files/x.zip", hub_urls=MIRRORS).scheme == "http"


def test_a_mirror_of_one_label_does_not_shadow_an_org() -> None:
    assert parse("hub/name", hub_urls=MIRRORS) == hub("hub/name")


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("org/name", "dataset", hub("org/name", "dataset")),
        ("hf:squad@v1", "dataset", hub("squad", "dataset", "v1")),
        ("datasets/org/name", "dataset", hub("org/name", "dataset")),
        ("hf://spaces/org/name", "space", hub("org/name", "space")),
        ("huggingface.co/org/name", "model", hub("org/name")),
    ],
)
def test_the_type_asked_for_decides_where_the_text_says_none(text: str, kind: Kind, expected: Reference) -> None:
    assert parse(text, kind=kind) == expected


def zoo(base: str, name: str, *arguments: tuple[str, str]) -> Reference:
    return Reference("zoo", base, RepoId("zoo", "model", f"sparsezoo/{name}"), arguments=arguments)


V1_NAME = "sentiment_analysis.obert-base.sst2.pruned90_quant-none"
V1_PAGE = f"https://sparsezoo.neuralmagic.com/models/{V1.replace('/', '%2F')}"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"zoo:{V1}", zoo(V1, V1_NAME)),
        (V1, zoo(V1, V1_NAME)),
        (f"{V1}?recipe=transfer", zoo(V1, V1_NAME, ("recipe", "transfer"))),
        (
            f"zoo:{V1}?checkpoint=preqat&deployment=default",
            zoo(V1, V1_NAME, ("checkpoint", "preqat"), ("deployment", "default")),
        ),
        (f"zoo:{V2}?recipe_type=a-b", zoo(V2, V2, ("recipe_type", "a-b"))),
        (V1_PAGE, zoo(V1, V1_NAME)),
        (f"{V1_PAGE}?comparison=x&y", zoo(V1, V1_NAME)),
        (f"https://sparsezoo.neuralmagic.com/models/{V2}/", zoo(V2, V2)),
    ],
)
def test_stubs(text: str, expected: Reference) -> None:
    assert parse(text) == expected


def web(address: str, name: str, *arguments: tuple[str, str]) -> Reference:
    return Reference("http", address, RepoId("http", "model", name), arguments=arguments)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            f"{ALICE}/StructBERT/english_sbert-large-std-512.tar.gz",
            web(f"{ALICE}/StructBERT/english_sbert-large-std-512.tar.gz", "alice-open/english_sbert-large-std-512"),
        ),
        ("HTTP://Example.COM:80/A.TGZ", web("http://example.com/A.TGZ", "example/A")),
        ("https://example.com:443/x.zip#top", web("https://example.com/x.zip", "example/x")),
        ("https://example.com:8443/x.zip?v=1", web("https://example.com:8443/x.zip?v=1", "example/x")),
        (f"https://h.org/x.zip#sha256={SHA256.upper()}", web("https://h.org/x.zip", "h/x", ("sha256", SHA256))),
        ("http://127.0.0.1:9/a.b.safetensors", web("http://127.0.0.1:9/a.b.safetensors", "127-0-0-1/a.b")),
        ("http://[::1]/x.zip", web("http://[::1]/x.zip", "1/x")),
        ("http://localhost/LICENSE", web("http://localhost/LICENSE", "localhost/LICENSE")),
        ("https://h.org/a%20(b)--c.zip", web("https://h.org/a%20(b)--c.zip", "h/a-b-c")),
        ("https://h.org/模型.zip", web("https://h.org/%E6%A8%A1%E5%9E%8B.zip", "h/file")),
        ("https://h.org/x.git.zip", web("https://h.org/x.git.zip", "h/x")),
        ("https://xn--bcher-kva.example.org/x.zip", web("https://xn--bcher-kva.example.org/x.zip", "xn-bcher-kva/x")),
        ("https://cdn.huggingface.co/x.bin", web("https://cdn.huggingface.co/x.bin", "cdn/x")),
    ],
)
def test_other_urls(text: str, expected: Reference) -> None:
    assert parse(text) == expected


def local(address: str, name: str) -> Reference:
    return Reference("file", address, RepoId("file", "model", f"local/{name}"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (".", local(".", "folder")),
        ("..", local("..", "folder")),
        ("/", local("/", "folder")),
        ("~", local("~", "folder")),
        ("../..", local("../..", "folder")),
        ("./x", local("./x", "x")),
        ("./My Models/x y.tar.gz", local("./My Models/x y.tar.gz", "x-y")),
        ("file:My Models", local("My Models", "My-Models")),
        ("../x/", local("../x/", "x")),
        ("~/x.tar.zst", local("~/x.tar.zst", "x")),
        ("~ann/x", local("~ann/x", "x")),
        ("/data/model.safetensors", local("/data/model.safetensors", "model")),
        ("/data/qwen2.5-0.5b", local("/data/qwen2.5-0.5b", "qwen2.5-0.5b")),
        ("./structbert.en.large", local("./structbert.en.large", "structbert.en.large")),
        ("./models/a/b/c/d/e/f", local("./models/a/b/c/d/e/f", "f")),
        ("//data//x", local("/data//x", "x")),
        ("x.tar.gz", local("x.tar.gz", "x")),
        ("dir/x.tgz", local("dir/x.tgz", "x")),
        ("a/b/c/d/e/f/g.ZIP", local("a/b/c/d/e/f/g.ZIP", "g")),
        ("file:x", local("x", "x")),
        ("file:a%20b", local("a%20b", "a-20b")),
        (r"file:C:\models\x", local(r"C:\models\x", "x")),
        ("file:///data/a%20b.zip", local("/data/a b.zip", "a-b")),
        ("file://localhost/x", local("/x", "x")),
        ("/data/user:a@b", local("/data/user:a@b", "user-a-b")),
    ],
)
def test_local_paths(text: str, expected: Reference) -> None:
    assert parse(text) == expected


def test_an_archive_or_folder_takes_the_type_asked_for() -> None:
    kinds = [parse(text, kind="dataset").repo.kind for text in ("./x", "https://h.org/x.zip")]
    assert kinds == ["dataset", "dataset"]


CATALOGUE = {"structbert.en.large": f"{ALICE}/x.tar.gz", "loop": "loop", "bad": "a/b/c", "hf:x": "./x"}


def test_a_catalogue_name_stands_for_its_reference() -> None:
    assert parse("structbert.en.large", catalogue=CATALOGUE).address == f"{ALICE}/x.tar.gz"


def test_hf_before_a_catalogue_name_asks_the_hub() -> None:
    assert parse("hf:structbert.en.large", catalogue=CATALOGUE) == hub("structbert.en.large")


def test_a_catalogue_name_with_a_colon_stands_for_nothing() -> None:
    assert parse("hf:x", catalogue=CATALOGUE) == hub("x")


def test_a_catalogue_is_not_asked_twice() -> None:
    assert parse("loop", catalogue=CATALOGUE) == hub("loop")


def test_a_wrong_reference_in_the_catalogue_names_the_entry() -> None:
    with pytest.raises(BadReference, match="'bad' in the catalogue: 'a/b/c'"):
        parse("bad", catalogue=CATALOGUE)


def test_a_plug_in_scheme_is_read_where_it_is_known() -> None:
    repo = RepoId("gs", "model", "gs/Qwen2.5-0.5B")
    assert parse("gs:Qwen/Qwen2.5-0.5B", schemes=("gs",)) == Reference("gs", "Qwen/Qwen2.5-0.5B", repo)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((f"x{suffix}", suffix) for suffix in ARCHIVE_SUFFIXES), ("X.TAR.GZ", ".tar.gz"), ("x.gz", None), ("tar", None)],
)
def test_the_longest_archive_suffix_is_found_in_any_case(name: str, suffix: str | None) -> None:
    assert archive_suffix(name) == suffix
