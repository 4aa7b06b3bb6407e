"""Web addresses taken apart and the names read off them; nothing here opens one."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import quote, unquote

from hubcache.errors import BadReference

ARCHIVE_SUFFIXES = (".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".tzst", ".tar.zst", ".zip")
# Only these are cut off a local name: `qwen2.5` and `structbert.en.large` are folders as often as not.
_FILE_SUFFIX = re.compile(
    r"(?i)\.(?:safetensors|bin|pt|pth|ckpt|onnx|gguf|h5|msgpack|npz|pkl|model"
    r"|json|jsonl|txt|csv|tsv|parquet|yaml|yml|md)\Z"
)

_PORTS = {"http": 80, "https": 443}
_WEB = re.compile(r"(?i:(https?)://)([^/?#]*)([^?#]*)(?:\?([^#]*))?(?:#(.*))?", re.DOTALL)
_AUTHORITY = re.compile(r"(\[[^\]]*\]|[^:\[\]]*)(?::([0-9]{0,5}))?", re.ASCII)
_HOST = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*", re.ASCII)
_URL_SAFE = "/?%:@!$&'()*+,;=~-._[]"
_CREDENTIALS = re.compile(
    r"(?i)(https?(?::/*|//))[^/?#]*@|((?!file:)[a-z][a-z0-9+.-]{0,31}:/+)[^/?#@:]*:[^/?#]*@",
)

# What no reference holds as it is: whitespace, control characters, halves of surrogate pairs.
UNFIT = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_ESCAPED = re.compile(r"[\s\x00-\x1f\x7f-\x9f%?#]")


@dataclass(frozen=True, slots=True)
class Url:
    """An http or https URL: scheme and host in lower case, no default port, path and query in ASCII."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str
    fragment: str

    @property
    def authority(self) -> str:
        """Host, and port where it is not the scheme's own."""
        return self.host if self.port is None else f"{self.host}:{self.port}"

    @property
    def address(self) -> str:
        """The whole URL without its fragment."""
        query = f"?{self.query}" if self.query else ""
        return f"{self.scheme}://{self.authority}{self.path}{query}"

    @property
    def file_name(self) -> str:
        """The last segment of the path, percent-decoded; empty where the path ends in a folder."""
        name = unquote(self.path.rpartition("/")[2])
        return "" if name in {".", ".."} else name


def is_web(text: str) -> bool:
    """Tell whether the text begins like an http or https URL."""
    return text[:6].lower().startswith(("http:", "https:"))


def split_url(text: str) -> Url:
    """Take an http or https URL apart.

    Raises:
        BadReference: no such URL, or it carries credentials.
    """
    match = _WEB.fullmatch(text)
    if match is None:
        raise BadReference(f"not an http or https URL: {shown(text)!r}")
    scheme, authority, path, query, fragment = match.groups()
    if "@" in authority:
        raise BadReference("credentials do not belong in URLs", hint=without_credentials(text))
    scheme = scheme.lower()
    host, port = _split_authority(authority.lower())
    return Url(
        scheme=scheme,
        host=host,
        port=None if port == _PORTS[scheme] else port,
        path=quote(path, safe=_URL_SAFE),
        query=quote(query or "", safe=_URL_SAFE),
        fragment=fragment or "",
    )


def _split_authority(text: str) -> tuple[str, int | None]:
    match = _AUTHORITY.fullmatch(text)
    host = match[1] if match else ""
    if host.startswith("["):
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError as error:
            raise BadReference(f"not an IPv6 address: {host!r}") from error
    elif not _HOST.fullmatch(host):
        raise BadReference(f"not a host: {text[:100]!r}")
    port = int(match[2]) if match and match[2] else None
    if port is not None and not 0 < port < 65536:
        raise BadReference(f"not a port: {port}")
    return host, port


def path_on_hub(text: str, hub_urls: Iterable[str]) -> str | None:
    """Return what a URL, with or without its scheme, says below a hub's own; None where it is on no hub.

    The scheme is not compared: the text names a repo, and the source asks the hub as configured.
    """
    url = split_url(text) if is_web(text) else None
    for hub in map(split_url, hub_urls):
        found = url or _without_scheme(text, hub)
        prefix = hub.path.rstrip("/")
        if found and found.authority == hub.authority and f"{found.path}/".startswith(f"{prefix}/"):
            return found.path[len(prefix) :].strip("/")
    return None


def _without_scheme(text: str, hub: Url) -> Url | None:
    authority = re.split(r"[/?#]", text, maxsplit=1)[0].lower()
    # A host of one label without a port would shadow an org of that name.
    if authority != hub.authority or not re.search(r"[.:]", authority):
        return None
    return split_url(f"{hub.scheme}://{text}")


def shown(text: str) -> str:
    """Return the text as a message may show it: cut short, a URL without credentials and query."""
    text = without_query(without_credentials(text), "?…")
    return text if len(text) <= 200 else f"{text[:200]}…"


def without_credentials(text: str) -> str:
    """Return the text without the `user:password@` before a host, where it has one."""
    match = _CREDENTIALS.match(text)
    return (match[1] or match[2]) + text[match.end() :] if match else text


def without_query(text: str, instead: str = "") -> str:
    """Return a URL without its query, which may be a signature; any other text as it is."""
    address, question, _ = text.partition("?")
    return address + instead if question and is_web(text) else text


def decode(text: str) -> str:
    """Undo percent-encoding.

    Raises:
        BadReference: the bytes are no UTF-8.
    """
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError as error:
        raise BadReference(f"percent-encoding that is not UTF-8: {text[:200]!r}") from error


def escape(path: str) -> str:
    """Percent-encode what would not survive in a reference: whitespace, controls, `%`, `?` and `#`."""
    return _ESCAPED.sub(lambda match: quote(match[0], safe=""), path)


def archive_suffix(name: str) -> str | None:
    """Return which of ARCHIVE_SUFFIXES the name ends in, in any case; None for any other name."""
    found = [suffix for suffix in ARCHIVE_SUFFIXES if name.lower().endswith(suffix)]
    return max(found, key=len, default=None)


def web_stem(name: str) -> str:
    """Return the part of a repo name that a downloaded file gives: no archive suffix, no extension."""
    suffix = archive_suffix(name)
    return repo_part(name[: -len(suffix)] if suffix else name.rpartition(".")[0] or name, "file")


def local_stem(path: str) -> str:
    """Return the part of a repo name that a file or folder gives; "folder" where the path names none."""
    name = re.split(r"[/\\]", path.rstrip("/\\"))[-1]
    if name in {"", ".", "..", "~"}:
        return "folder"
    suffix = archive_suffix(name)
    return repo_part(name[: -len(suffix)] if suffix else _FILE_SUFFIX.sub("", name), "file")


def bucket(host: str) -> str:
    """Return the part of a repo name that a host gives: its first label, or all of an IP address."""
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return repo_part(host.partition(".")[0], "host")
    return repo_part(re.sub(r"[.:]+", "-", str(address)), "host")


def repo_part(text: str, fallback: str, limit: int = 96) -> str:
    """Return the nearest text that RepoId.parse takes as one part of a name."""
    text = re.sub(r"[^A-Za-z0-9_.-]+", "-", text)
    text = re.sub(r"\.{2,}", ".", re.sub(r"-{2,}", "-", text))
    text = text.strip("-.")[:limit].rstrip("-.")
    while text.endswith(".git"):
        text = text.removesuffix(".git").rstrip("-.")
    return text or fallback
