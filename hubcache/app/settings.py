"""The only reader of the environment: what HF_*, SPARSEZOO_* and HUBCACHE_* say, as one frozen value.

The HF_ variables mean what they mean to huggingface_hub (constants.py, _auth.py of 2.4).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

HUGGINGFACE = "https://huggingface.co"
SPARSEZOO = "https://api.neuralmagic.com"
DEFAULT_TIMEOUT = 10
_TRUE = {"1", "ON", "YES", "TRUE"}

VARIABLES = {
    "HF_HOME": "Hugging Face's folder; default $XDG_CACHE_HOME/huggingface, else ~/.cache/huggingface",
    "HF_HUB_CACHE": "the cache; default $HF_HOME/hub",
    "HF_ENDPOINT": "the Hub that is asked; default https://huggingface.co",
    "HF_TOKEN": "your token; for https://huggingface.co, to an HF_ENDPOINT on loopback, and where mirrors.yaml says",
    "HF_TOKEN_PATH": "the file with your token (hf auth login writes it); default $HF_HOME/token; huggingface.co only",
    "HF_HUB_OFFLINE": "1: no request leaves this machine",
    "HF_HUB_DISABLE_SYMLINKS": "1: real files in the snapshots, no links",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1: no token is sent unless mirrors.yaml names it",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1: no progress bars",
    "HF_HUB_ETAG_TIMEOUT": "seconds to wait for a connection; default 10",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds to wait for the next bytes; default 10",
    "SPARSEZOO_API_URL": "the SparseZoo API; default https://api.neuralmagic.com",
    "HUBCACHE_MIRRORS": "your mirrors.yaml; default ~/.config/hubcache/mirrors.yaml",
    "HTTP_PROXY, HTTPS_PROXY, NO_PROXY": "proxies, as curl reads them; loopback is always reached directly",
}
"""Every variable that is read, with what it means; the README's table is this one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; `environ` is kept for the token variables that mirrors.yaml names."""

    hub_cache: Path
    endpoint: str
    zoo_api: str
    offline: bool = False
    symlinks: bool | None = None
    progress_bars: bool = True
    connect_timeout: float = DEFAULT_TIMEOUT
    read_timeout: float = DEFAULT_TIMEOUT
    mirrors_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_is_from_environment: bool = False
    implicit_token: bool = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment (this process's, if none is given)."""
        environ = dict(os.environ if environ is None else environ)
        home = _expand(
            environ.get("HF_HOME") or _join(environ.get("XDG_CACHE_HOME", "~/.cache"), "huggingface"), environ
        )
        cache = environ.get("HF_HUB_CACHE") or environ.get("HUGGINGFACE_HUB_CACHE") or _join(home, "hub")
        token = _clean(environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN"))
        return cls(
            hub_cache=Path(_expand(cache, environ)),
            endpoint=(environ.get("HF_ENDPOINT") or HUGGINGFACE).rstrip("/"),
            zoo_api=(environ.get("SPARSEZOO_API_URL") or SPARSEZOO).rstrip("/"),
            offline=_is_true(environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE")),
            symlinks=False if _is_true(environ.get("HF_HUB_DISABLE_SYMLINKS")) else None,
            progress_bars=not _is_true(environ.get("HF_HUB_DISABLE_PROGRESS_BARS")),
            connect_timeout=_seconds(environ.get("HF_HUB_ETAG_TIMEOUT")),
            read_timeout=_seconds(environ.get("HF_HUB_DOWNLOAD_TIMEOUT")),
            mirrors_file=_mirrors_file(environ),
            token=token or _token_file(environ, home),
            token_is_from_environment=token is not None,
            implicit_token=not _is_true(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            proxies=_proxies(environ),
            environ=environ,
        )


def _expand(path: str, environ: Mapping[str, str]) -> str:
    # os.path.expandvars and expanduser read the process's environment; this value may be another's.
    for name, value in environ.items():
        path = path.replace(f"${{{name}}}", value)
    parts = [environ.get(part[1:], part) if part.startswith("$") else part for part in path.split("/")]
    path = "/".join(parts)
    if path == "~" or path.startswith("~/"):
        return environ.get("HOME", os.path.expanduser("~")) + path[1:]
    return os.path.expanduser(path)


def _join(folder: str, name: str) -> str:
    return os.path.join(folder, name)


def _is_true(text: str | None) -> bool:
    return (text or "").upper() in _TRUE


def _seconds(text: str | None) -> float:
    try:
        return float(int(text or "")) or DEFAULT_TIMEOUT
    except ValueError:
        return DEFAULT_TIMEOUT


def _clean(token: str | None) -> str | None:
    return (token or "").replace("\r", "").replace("\n", "").strip() or None


def _token_file(environ: Mapping[str, str], home: str) -> str | None:
    path = environ.get("HF_TOKEN_PATH") or _join(home, "token")
    try:
        return _clean(Path(_expand(path, environ)).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _mirrors_file(environ: Mapping[str, str]) -> Path | None:
    named = environ.get("HUBCACHE_MIRRORS")
    if named:
        return Path(_expand(named, environ))
    default = Path(_expand(_join(environ.get("XDG_CONFIG_HOME", "~/.config"), "hubcache/mirrors.yaml"), environ))
    return default if default.exists() else None


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for scheme in ("http", "https", "all", "no"):
        # As curl does: HTTP_PROXY in capitals could have come from a request's header in a CGI.
        names = [f"{scheme}_proxy"] + ([f"{scheme.upper()}_PROXY"] if "REQUEST_METHOD" not in environ else [])
        value = next((environ[name] for name in names if environ.get(name)), None)
        if value:
            found[scheme] = value
    return found


def is_completing() -> bool:
    """Tell whether a shell started this process to ask for completions."""
    return "_HUBCACHE_COMPLETE" in os.environ
