"""The only reader of the environment: what HF_*, SPARSEZOO_* and HUBCACHE_* say, as one frozen value.

The HF_ variables mean what they mean to huggingface_hub (constants.py, _auth.py of 2.4).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hubcache.core.urls import shown
from hubcache.errors import BadConfig

HUGGINGFACE = "https://huggingface.co"
SPARSEZOO = "https://api.neuralmagic.com"
DEFAULT_TIMEOUT = 10
_TRUE = {"1", "ON", "YES", "TRUE"}
_VARIABLE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)

VARIABLES = {
    "HF_HOME": "Hugging Face's folder; default $XDG_CACHE_HOME/huggingface",
    "XDG_CACHE_HOME": "where HF_HOME is by default; default ~/.cache",
    "HF_HUB_CACHE": "the cache; default $HF_HOME/hub",
    "HUGGINGFACE_HUB_CACHE": "the older name of HF_HUB_CACHE",
    "HF_ENDPOINT": "the Hub that is asked; default https://huggingface.co",
    "HF_TOKEN": "your token; for https://huggingface.co, for an HF_ENDPOINT on loopback, and where mirrors.yaml says",
    "HUGGING_FACE_HUB_TOKEN": "the older name of HF_TOKEN",
    "HF_TOKEN_PATH": "the file with your token (hf auth login writes it); default $HF_HOME/token; huggingface.co only",
    "HF_HUB_OFFLINE": "1: no request leaves this machine",
    "TRANSFORMERS_OFFLINE": "the same, where HF_HUB_OFFLINE is unset or empty",
    "HF_HUB_DISABLE_SYMLINKS": "1: real files in the snapshots, no links",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1: no token is sent unless mirrors.yaml names it",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1: no progress bars",
    "HF_HUB_ETAG_TIMEOUT": "seconds to wait for a connection; default 10",
    "HF_HUB_DOWNLOAD_TIMEOUT": "seconds to wait for the next bytes; default 10",
    "SPARSEZOO_API_URL": "the SparseZoo API; default https://api.neuralmagic.com",
    "HUBCACHE_MIRRORS": "your mirrors.yaml; default $XDG_CONFIG_HOME/hubcache/mirrors.yaml",
    "XDG_STATE_HOME": "where hubcache/health.json is, how the mirrors did; default ~/.local/state",
    "XDG_CONFIG_HOME": "where hubcache/mirrors.yaml is by default; default ~/.config",
    "HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY": "proxies; in lower case too, which wins; never used for loopback",
}
"""Every variable that is read, with what it means; the README's table is this one."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What the environment says; `environ` is kept for the token variables that mirrors.yaml names.

    `mirrors_file` is the user's file where it is read, `own_mirrors_file` the same where it need not be there yet.
    """

    hub_cache: Path
    endpoint: str
    zoo_api: str
    state: Path | None = None
    project_mirrors: Path | None = None
    offline: bool = False
    symlinks: bool | None = None
    progress_bars: bool = True
    connect_timeout: float = DEFAULT_TIMEOUT
    read_timeout: float = DEFAULT_TIMEOUT
    mirrors_file: Path | None = None
    own_mirrors_file: Path | None = None
    token: str | None = field(default=None, repr=False)
    token_is_from_environment: bool = False
    implicit_token: bool = True
    proxies: Mapping[str, str] = field(default_factory=dict, repr=False)
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the environment (this process's, if none is given)."""
        environ = os.environ if environ is None else environ
        cache_home = environ.get("XDG_CACHE_HOME", "~/.cache")
        home = _expand(environ.get("HF_HOME", os.path.join(cache_home, "huggingface")), environ)
        cache = environ.get("HF_HUB_CACHE", environ.get("HUGGINGFACE_HUB_CACHE", os.path.join(home, "hub")))
        token = clean_token(environ.get("HF_TOKEN") or environ.get("HUGGING_FACE_HUB_TOKEN"))
        return cls(
            hub_cache=Path(_expand(cache, environ)),
            endpoint=_endpoint("HF_ENDPOINT", HUGGINGFACE, environ),
            zoo_api=_endpoint("SPARSEZOO_API_URL", SPARSEZOO, environ),
            state=Path(_expand(os.path.join(environ.get("XDG_STATE_HOME") or "~/.local/state", "hubcache"), environ)),
            project_mirrors=None if environ.get("HUBCACHE_MIRRORS") else _project_mirrors(),
            offline=_is_true(environ.get("HF_HUB_OFFLINE") or environ.get("TRANSFORMERS_OFFLINE")),
            symlinks=False if _is_true(environ.get("HF_HUB_DISABLE_SYMLINKS")) else None,
            progress_bars=not _is_true(environ.get("HF_HUB_DISABLE_PROGRESS_BARS")),
            connect_timeout=_seconds("HF_HUB_ETAG_TIMEOUT", environ),
            read_timeout=_seconds("HF_HUB_DOWNLOAD_TIMEOUT", environ),
            mirrors_file=_mirrors_file(environ),
            own_mirrors_file=_own_mirrors_file(environ),
            token=token or _token_file(environ, home),
            token_is_from_environment=token is not None,
            implicit_token=not _is_true(environ.get("HF_HUB_DISABLE_IMPLICIT_TOKEN")),
            proxies=_proxies(environ),
            environ=dict(environ),
        )

    @property
    def shell(self) -> str:
        """The name of the person's shell, by $SHELL; empty where that is not set."""
        return os.path.basename(self.environ.get("SHELL", ""))


def _expand(path: str, environ: Mapping[str, str]) -> str:
    """Expand as os.path.expanduser and then os.path.expandvars do, by this environment instead of the process's."""
    if "HOME" in environ and (path == "~" or path.startswith("~/")):
        path = environ["HOME"].rstrip("/") + path[1:] or "/"
    else:
        path = os.path.expanduser(path)
    return _VARIABLE.sub(lambda match: environ.get(match[1] or match[2], match[0]), path)


def _endpoint(name: str, default: str, environ: Mapping[str, str]) -> str:
    url = environ.get(name) or default
    if not url.lower().startswith(("http://", "https://")):
        raise BadConfig(f"{name} is no http or https URL: {shown(url)!r}", hint=f"export {name}={default}")
    return url.rstrip("/")


def _is_true(text: str | None) -> bool:
    return (text or "").upper() in _TRUE


def _seconds(name: str, environ: Mapping[str, str]) -> float:
    text = environ.get(name, "")
    try:
        seconds = int(text or 0)
    except ValueError:
        seconds = -1
    if seconds < 0:
        raise BadConfig(f"{name} is no number of seconds: {text[:40]!r}", hint=f"export {name}={DEFAULT_TIMEOUT}")
    return float(seconds or DEFAULT_TIMEOUT)


def clean_token(token: str | None) -> str | None:
    """Take line ends and blanks off a token, as huggingface_hub does; None for one that is empty."""
    return (token or "").replace("\r", "").replace("\n", "").strip() or None


def _token_file(environ: Mapping[str, str], home: str) -> str | None:
    path = _expand(environ.get("HF_TOKEN_PATH", os.path.join(home, "token")), environ)
    try:
        return clean_token(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _mirrors_file(environ: Mapping[str, str]) -> Path | None:
    path = _own_mirrors_file(environ)
    return path if environ.get("HUBCACHE_MIRRORS") or path.exists() else None


def _own_mirrors_file(environ: Mapping[str, str]) -> Path:
    folder = environ.get("XDG_CONFIG_HOME") or "~/.config"
    named = environ.get("HUBCACHE_MIRRORS") or os.path.join(folder, "hubcache/mirrors.yaml")
    return Path(_expand(named, environ))


def _project_mirrors() -> Path | None:
    """Find the project's file: mirrors.yaml in the working directory."""
    path = Path("mirrors.yaml")
    return path.absolute() if path.is_file() else None


def _proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Read the proxies as urllib.request.getproxies does: lower case wins, also when it is empty."""
    found = {}
    for scheme in ("http", "https", "all", "no"):
        value = environ.get(f"{scheme}_proxy")
        # In a CGI, HTTP_PROXY in capitals could have come from a request's header.
        if value is None and not (scheme == "http" and "REQUEST_METHOD" in environ):
            value = environ.get(f"{scheme.upper()}_PROXY")
        if value:
            found[scheme] = value
    return found


def is_completing() -> bool:
    """Tell whether a shell started this process to ask for completions."""
    return "_HUBCACHE_COMPLETE" in os.environ
