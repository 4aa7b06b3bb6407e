"""What other tools have to find in their environment to use this cache or mirror, and how a shell is told.

It reads no environment and sets none: settings in, variables and text out.
"""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from hubcache.app.settings import HUGGINGFACE, Settings
from hubcache.core.urls import Url, split_url
from hubcache.errors import BadConfig
from hubcache.mirrors.config import MirrorsConfig

_NAME = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_REFERENCE = re.compile(r"\$(?:(\w+)|\{([^}]*)\})", re.ASCII)
# PowerShell takes each of the typographic single quotes for a quote, too.
_POWERSHELL_QUOTES = re.compile("(['\u2018\u2019\u201a\u201b])")


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable and what it is for; a secret is named by the variable it is copied from, and never held."""

    name: str
    value: str
    why: str
    copied_from: str | None = None


def online_variables(settings: Settings, mirrors: MirrorsConfig) -> list[Variable]:
    """List what makes Hugging Face's tools ask the configured mirror and share the cache.

    Raises:
        BadConfig: the cache's path cannot be said in HF_HUB_CACHE.
    """
    endpoint = _endpoint(settings, mirrors)
    found = [Variable("HF_ENDPOINT", endpoint, "The hub that is asked."), _cache(settings)]
    if _origin(endpoint) != _origin(HUGGINGFACE):
        found.append(Variable("HF_HUB_DISABLE_XET", "1", "hf_xet would fetch from servers that are not the mirror's."))
        found += _token(settings, mirrors, split_url(endpoint))
    return found


def offline_variables(settings: Settings) -> list[Variable]:
    """List what makes Hugging Face's tools use the cache and ask nobody.

    Raises:
        BadConfig: the cache's path cannot be said in HF_HUB_CACHE.
    """
    return [
        _cache(settings),
        Variable("HF_HUB_OFFLINE", "1", "huggingface_hub sends no request."),
        Variable("TRANSFORMERS_OFFLINE", "1", "The same, for versions of transformers that read only this one."),
        Variable("HF_DATASETS_OFFLINE", "1", "The same, for datasets."),
        Variable("HF_HUB_DISABLE_TELEMETRY", "1", "Nothing is told about the use of a library."),
    ]


def _endpoint(settings: Settings, mirrors: MirrorsConfig) -> str:
    """Choose the one address that hf can ask for everything: HF_ENDPOINT, or the first mirror fit for that."""
    fit = [m.url for m in mirrors.of("huggingface") if "metadata" in m.trust and not m.namespaces]
    is_chosen = settings.endpoint != HUGGINGFACE or settings.environ.get("HF_ENDPOINT")
    chosen = settings.endpoint if is_chosen or not fit else fit[0]
    return chosen.rstrip("/")


def _cache(settings: Settings) -> Variable:
    path = str(settings.hub_cache.absolute())
    for match in _REFERENCE.finditer(path):
        if (match[1] or match[2]) in settings.environ:
            raise BadConfig(
                f"huggingface_hub would put the value of a variable for {match[0]} in {path!r}",
                hint="choose a cache folder without it: --cache-dir FOLDER",
            )
    return Variable("HF_HUB_CACHE", path, "The cache, shared by hubcache and huggingface_hub.")


def _token(settings: Settings, mirrors: MirrorsConfig, endpoint: Url) -> list[Variable]:
    """Give the mirror the token that mirrors.yaml names for it, or none: hf would send it the user's own."""
    named = next((m.token for m in mirrors.mirrors if m.token and _origin(m.url) == _origin(endpoint.address)), None)
    if named and settings.environ.get(named) and _is_private(endpoint):
        if not _NAME.fullmatch(named):
            raise BadConfig(f"not the name of a variable: {named!r}", hint="token: TEAM_HUB_TOKEN, in mirrors.yaml")
        if named == "HF_TOKEN":
            return []
        return [Variable("HF_TOKEN", "", "The token that mirrors.yaml names for this mirror.", copied_from=named)]
    return [Variable("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1", "hf would send your token to the mirror.")]


def _origin(text: str) -> tuple[str, str]:
    url = split_url(text)
    return url.scheme, url.authority


def _is_private(url: Url) -> bool:
    """Tell whether nobody on the way reads what is sent there."""
    if url.scheme == "https" or url.host == "localhost":
        return True
    try:
        return ipaddress.ip_address(url.host.strip("[]")).is_loopback
    except ValueError:
        return False


def applied(environ: Mapping[str, str], variables: Iterable[Variable]) -> dict[str, str]:
    """Lay variables over an environment."""
    values = {each.name: environ.get(each.copied_from, "") if each.copied_from else each.value for each in variables}
    return {**environ, **values}


def without_proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """Leave the proxies out: one on loopback would be a way out, any other would hide who is being asked."""
    return {name: value for name, value in environ.items() if name.lower() not in _PROXIES}


_PROXIES = {"http_proxy", "https_proxy", "ftp_proxy", "all_proxy"}


def script(variables: Iterable[Variable], shell: str) -> str:
    """Write the assignments for a shell of SHELLS, each under a comment that explains it.

    Raises:
        BadConfig: a value that this shell has no quotes for.
    """
    syntax = SHELLS[shell]
    lines = [f"{syntax.comment} {syntax.usage}"]
    for each in variables:
        lines.append(f"{syntax.comment} {each.why}")
        if each.copied_from:
            lines.append(syntax.copying(each.name, each.copied_from))
        else:
            lines.append(syntax.setting(each.name, syntax.quoted(_one_line(each))))
    return "\n".join(lines) + "\n"


def _one_line(variable: Variable) -> str:
    if set(variable.value) & set("\r\n\0"):
        raise BadConfig(f"{variable.name} holds a line end, which a shell's assignment cannot: {variable.value!r}")
    return variable.value


def _quoted_fish(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _quoted_powershell(text: str) -> str:
    return "'" + _POWERSHELL_QUOTES.sub(r"\1\1", text) + "'"


def _quoted_cmd(text: str) -> str:
    """Write a value for `set "NAME=…"` in a batch file, where only `%` means something."""
    if '"' in text:
        raise BadConfig(f"cmd has no way to write a double quote: {text!r}", hint="hubcache env --shell powershell")
    return text.replace("%", "%%")


@dataclass(frozen=True, slots=True)
class Syntax:
    """How a shell says it: a comment, a quoted value, an assignment, an assignment from another variable."""

    comment: str
    usage: str
    quoted: Callable[[str], str]
    setting: Callable[[str, str], str]
    copying: Callable[[str, str], str]


_POSIX = Syntax(
    "#", 'eval "$(hubcache env)"', shlex.quote,
    lambda name, value: f"export {name}={value}",
    lambda name, other: f'export {name}="${{{other}-}}"',
)  # fmt: skip
SHELLS: Mapping[str, Syntax] = {
    "bash": _POSIX,
    "zsh": _POSIX,
    "fish": Syntax(
        "#", "hubcache env --shell fish | source", _quoted_fish,
        lambda name, value: f"set -gx {name} {value}",
        lambda name, other: f'set -gx {name} "${other}"',
    ),
    "powershell": Syntax(
        "#", "hubcache env --shell powershell | Out-String | Invoke-Expression", _quoted_powershell,
        lambda name, value: f"$env:{name} = {value}",
        lambda name, other: f"$env:{name} = $env:{other}",
    ),
    "cmd": Syntax(
        "@rem", "hubcache env --shell cmd > hubcache-env.bat && call hubcache-env.bat", _quoted_cmd,
        lambda name, value: f'@set "{name}={value}"',
        lambda name, other: f'@set "{name}=%{other}%"',
    ),
}  # fmt: skip
