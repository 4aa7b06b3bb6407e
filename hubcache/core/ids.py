"""The grammar of references, text to value and back; whether what it names exists is the sources' to say."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import MappingProxyType

from hubcache.core.artifact import KINDS, Kind, RepoId
from hubcache.core.hubnames import TYPES, hub_text, read_file, read_name, read_page
from hubcache.core.reference import Reference
from hubcache.core.scopenames import read_scope, read_scope_page, scope_text
from hubcache.core.stubs import parse_stub, stub_in_url
from hubcache.core.urls import (
    CONTROL,
    UNFIT,
    archive_suffix,
    bucket,
    decode,
    escape,
    is_web,
    local_stem,
    path_on_hub,
    repo_part,
    shown,
    split_url,
    web_stem,
    without_credentials,
    without_query,
)
from hubcache.errors import BadReference

HUB_URLS = ("https://huggingface.co", "https://hf.co")
SCHEMES = ("hf", "zoo", "ms", "https", "http", "file")
LIMIT = 8192  # characters, of the text and of its canonical form

_EMPTY: Mapping[str, str] = MappingProxyType({})
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]{0,31}):(.*)", re.DOTALL)
_DRIVE = re.compile(r"[A-Za-z]:[\\/]")
_LOCAL = re.compile(r"\.{1,2}(?:/.*)?|[~/].*", re.DOTALL)
_NO_COLON = re.compile(r"(?i)(?:hf|https?)//")
_SHA256 = re.compile(r"(?i)sha256=([0-9a-f]{64})", re.ASCII)
_CHECKSUM = re.compile(r"(?i)(sha[0-9]+|md5)\b", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Grammar:
    """What the grammar depends on: the hubs' own addresses and the plug-ins' schemes."""

    hub_urls: tuple[str, ...]
    schemes: tuple[str, ...]


def parse(
    text: str,
    *,
    kind: Kind | None = None,
    hub_urls: tuple[str, ...] = HUB_URLS,
    catalogue: Mapping[str, str] = _EMPTY,
    schemes: tuple[str, ...] = (),
) -> Reference:
    """Parse what a person types or pastes for a repo, a file of it, a stub, a URL or a local path.

    Args:
        text: whitespace around it is dropped.
        kind: the type of what the text gives no type for; where it gives one, both must agree.
        hub_urls: where the hub and its mirrors are, each perhaps with a path.
        catalogue: short names, without a colon, and the references they stand for.
        schemes: further schemes that have a source.

    Raises:
        BadReference: says how the text was read and what is wrong; its hint is a reference that parses.
    """
    if kind is not None and kind not in KINDS:
        near = difflib.get_close_matches(str(kind)[:80], KINDS, 1)
        raise BadReference(f"no such repo type: {kind!r}", hint=near[0] if near else f"one of: {', '.join(KINDS)}")
    text = text.strip()
    if ":" not in text and text in catalogue:
        try:
            return parse(catalogue[text], kind=kind, hub_urls=hub_urls, schemes=schemes)
        except BadReference as error:
            raise BadReference(f"{text!r} in the catalogue: {error.message}", hint=error.hint) from error
    grammar = _Grammar(hub_urls, schemes)
    try:
        return _read(text, kind, grammar)
    except BadReference as error:
        error.hint = _first_valid([error.hint, *_nearest(text, grammar)], grammar)
        raise


def canonical(reference: Reference) -> str:
    """Write a reference so that parse gives it back; its repo is not written where it was chosen otherwise."""
    address, pairs = reference.address, reference.arguments
    if reference.scheme in {"hf", "ms"}:
        return hub_text(reference) if reference.scheme == "hf" else scope_text(reference)
    if reference.scheme == "zoo":
        return f"zoo:{address}" + ("?" + "&".join(f"{key}={value}" for key, value in pairs) if pairs else "")
    if reference.scheme == "http":
        return address + "".join(f"#{key}={value}" for key, value in pairs)
    if reference.scheme == "file" and address.startswith("/") and UNFIT.search(address):
        return f"file://{escape(address)}"
    return f"{reference.scheme}:{address}"


def _read(text: str, kind: Kind | None, grammar: _Grammar) -> Reference:
    _check_characters(text)
    reference = _read_form(text, kind, grammar)
    if len(canonical(reference)) > LIMIT:
        raise BadReference(f"longer than {LIMIT} characters: {shown(text)!r}")
    return reference


def _check_characters(text: str) -> None:
    if not text:
        raise BadReference("an empty reference names nothing")
    if len(text) > LIMIT:
        raise BadReference(f"longer than {LIMIT} characters: {shown(text)!r}")
    if without_credentials(text) != text:
        raise BadReference(
            f"{shown(text)!r} came with credentials, which do not belong in URLs", hint=without_credentials(text)
        )
    # A local path may hold spaces, as people's folders do; nothing else may.
    is_local = _LOCAL.fullmatch(text) or text[:5].lower() == "file:"
    if UNFIT.search(text.replace(" ", "") if is_local else text):
        raise BadReference(f"a reference holds no whitespace and no control characters: {shown(text)!r}")


def _read_form(text: str, kind: Kind | None, grammar: _Grammar) -> Reference:
    if _DRIVE.match(text):
        raise BadReference(f"{shown(text)!r} reads as a Windows path, which needs its scheme", hint=f"file:{text}")
    if _LOCAL.fullmatch(text):
        with _reading(text, "a local path"):
            return _local(text, kind)
    with _reading(text, "a URL"):
        page = path_on_hub(text, grammar.hub_urls)
    if page is not None:
        with _reading(text, "a page of the hub"):
            return read_page(page, kind)
    with _reading(text, "a page of ModelScope"):
        if (found := read_scope_page(text, kind)) is not None:
            return found
    if match := _SCHEME.fullmatch(text):
        return _read_scheme(text, match[1].lower(), match[2], kind, grammar)
    if _NO_COLON.match(text):
        raise BadReference(f"{shown(text)!r} lacks the ':' before its '//'")
    if archive_suffix(text):
        with _reading(text, "a local archive"):
            return _local(text, kind)
    if text.partition("?")[0].count("/") >= 6 and "@" not in text:
        with _reading(text, "a SparseZoo stub"):
            return _zoo(text, kind)
    with _reading(text, "a hub name"):
        return read_name(text, kind, typed_from=3)


def _read_scheme(text: str, scheme: str, rest: str, kind: Kind | None, grammar: _Grammar) -> Reference:
    if scheme == "hf":
        with _reading(text, "a hub name"):
            return read_file(rest[2:], kind) if rest.startswith("//") else read_name(rest, kind, typed_from=2)
    if scheme == "zoo":
        with _reading(text, "a SparseZoo stub"):
            return _zoo(rest, kind)
    if scheme == "ms":
        with _reading(text, "a ModelScope name"):
            return read_scope(rest, kind)
    if is_web(text):
        with _reading(text, "a URL"):
            return _web(text, kind)
    if scheme == "file":
        with _reading(text, "a local path"):
            return _local(_file_address(rest), kind)
    if scheme in grammar.schemes:
        with _reading(text, f"a reference of {scheme}"):
            return _plugin(scheme, rest, kind)
    # The rest is not shown: `user:token@host` reads as a scheme, too.
    raise BadReference(f"no source has the scheme {scheme!r} (there are {', '.join((*SCHEMES, *grammar.schemes))})")


@contextmanager
def _reading(text: str, form: str) -> Iterator[None]:
    try:
        yield
    except BadReference as error:
        raise BadReference(f"{shown(text)!r} reads as {form}: {error.message}", hint=error.hint) from error


def _zoo(text: str, kind: Kind | None) -> Reference:
    stub = parse_stub(f"zoo:{text}")
    if kind not in (None, "model"):
        raise BadReference(f"it names a model, the type asked for is {kind}", hint=f"zoo:{stub.base}")
    return Reference("zoo", stub.base, RepoId.parse(stub.repo_name(), hub="zoo"), arguments=stub.arguments)


def _web(text: str, kind: Kind | None) -> Reference:
    url = split_url(text)
    stub = stub_in_url(url)
    if stub is not None:
        return _zoo(stub, kind)
    if not url.file_name:
        folder = f"{url.scheme}://{url.authority}{url.path.rpartition('/')[0]}"
        raise BadReference("it ends in no file's name", hint=f"{folder}/model.tar.gz")
    checksum = _SHA256.fullmatch(url.fragment)
    if checksum is None and _CHECKSUM.match(url.fragment):
        raise BadReference(f"a checksum is #sha256= and 64 hex digits, not #{url.fragment[:80]}", hint=url.address)
    repo = RepoId.parse(f"{bucket(url.host)}/{web_stem(url.file_name)}", hub="http", kind=kind or "model")
    return Reference("http", url.address, repo, arguments=(("sha256", checksum[1].lower()),) if checksum else ())


def _file_address(rest: str) -> str:
    if not rest.startswith("//"):
        return rest
    host, slash, path = rest[2:].partition("/")
    if host not in {"", "localhost"}:
        raise BadReference(f"{host!r} is a host, and local files have none", hint=f"file:{rest[2:]}")
    return decode(slash + path)


def _local(address: str, kind: Kind | None) -> Reference:
    address = re.sub(r"\A//+", "/", address)
    if not address or CONTROL.search(address):
        raise BadReference("it names no file or folder", hint="./folder")
    repo = RepoId.parse(f"local/{local_stem(address)}", hub="file", kind=kind or "model")
    return Reference("file", address, repo)


def _plugin(scheme: str, rest: str, kind: Kind | None) -> Reference:
    if not rest:
        raise BadReference("nothing follows the scheme", hint=f"{scheme}:name")
    name = f"{repo_part(scheme, 'plugin')}/{local_stem(rest)}"
    return Reference(scheme, rest, RepoId.parse(name, hub=scheme, kind=kind or "model"))


def _first_valid(candidates: Iterable[str], grammar: _Grammar) -> str:
    """Return the first candidate that parses, or the first such hint that its error gives; no URL's query."""
    for candidate in map(without_query, candidates):
        try:
            _read(candidate, None, grammar)
            return candidate
        except BadReference as error:
            second = without_query(error.hint)
        with suppress(BadReference):
            _read(second, None, grammar)
            return second
    return "org/name"


def _nearest(text: str, grammar: _Grammar) -> Iterator[str]:
    """Yield what may have been meant, the likeliest first; not all of it parses."""
    if len(text) > LIMIT:
        return
    text = _without_whitespace(text)
    yield text
    if text.rstrip(":") not in SCHEMES:
        yield text.rstrip("@/:#?")
    slashes = re.fullmatch(r"(?i)(hf|https?)(?::/+|//+)(.*)", text)
    if slashes:
        yield f"{slashes[1]}://{slashes[2]}"
    scheme, colon, rest = text.partition(":")
    if colon:
        near = difflib.get_close_matches(scheme[:32].lower(), (*SCHEMES, *grammar.schemes), 1)
        yield from (f"{scheme}:{rest}" for scheme in near)
    revised = re.fullmatch(r"((?:(?:hf|ms):(?://)?)?[\w./-]+)[:#]([\w./-]+)", text, re.ASCII)
    if revised and ("/" in revised[1] or "/" not in revised[2]):
        yield f"{revised[1]}@{revised[2]}"
    if is_web(text):
        yield re.sub(r"(//[^/:]*):[^/]*", r"\1", text, count=1)  # a port that is none
        yield "https://host/model.tar.gz"
    elif "@" not in rest:  # what stands before it may be a token
        yield f"hf:{rest}"
    yield from _nearest_names(text)


def _nearest_names(text: str) -> Iterator[str]:
    prefix = text[:3] if text.startswith(("hf:", "ms:")) else ""
    name = text.removeprefix(prefix).partition("@")[0]
    segments = [segment for segment in name.split("/") if segment]
    if ":" in name or not segments:
        return
    near = difflib.get_close_matches(segments[0][:32], TYPES, 1, 0.8)
    if near and len(segments) == 3:
        yield prefix + "/".join([near[0], *segments[1:]])
    depth = 3 if segments[0] in TYPES else 2
    repo, path = segments[:depth], segments[depth:]
    if path and "." in path[-1]:
        yield f"{prefix or 'hf:'}//{'/'.join(repo)}@main/{'/'.join(path)}"
    yield prefix + "/".join(part for part in (repo_part(segment, "") for segment in repo) if part)


def _without_whitespace(text: str) -> str:
    text = re.sub(r"\s", " ", text)
    text = CONTROL.sub("", text)
    if text.startswith("/"):
        return f"file://{escape(text)}" if " " in text else text
    if "://" in text:
        return text.replace(" ", "%20")
    return re.sub(r" +", "-", re.sub(r" *([/@:]) *", r"\1", text))
