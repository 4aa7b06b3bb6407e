"""What may be wrong with this machine's set-up, check by check; nothing is repaired, and no token is ever shown."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace

from hubcache.app import machine
from hubcache.app.compose import bound_tokens, compose
from hubcache.app.machine import Check
from hubcache.app.settings import Settings
from hubcache.core.origins import Origin, redact
from hubcache.errors import BadConfig, HubcacheError
from hubcache.mirrors.config import MirrorsConfig, load, shipped_path
from hubcache.net import Net

CONNECT_TIMEOUT = 4.0
PATIENCE = 9.0


def checks(settings: Settings) -> Iterator[Check]:
    """Make all the checks; the network's come last, because they may take their time."""
    yield machine.check_python(sys.version_info[:2])
    yield machine.check_versions()
    yield from machine.check_cache_folder(settings)
    yield machine.check_space(settings)
    yield from machine.check_repos(settings)
    yield check_mirrors(settings)
    yield check_endpoint(settings)
    yield check_offline(settings)
    yield check_token(settings)
    yield check_proxies(settings)
    yield from check_network(settings)


def check_mirrors(settings: Settings) -> Check:
    """Read the mirrors file."""
    try:
        _configured(settings)
    except BadConfig as error:
        return Check("mirrors file", "problem", error.message, error.hint)
    return Check("mirrors file", "ok", str(settings.mirrors_file or f"the one that came along, {shipped_path()}"))


def check_endpoint(settings: Settings) -> Check:
    """Check HF_ENDPOINT as other libraries read it."""
    given = settings.environ.get("HF_ENDPOINT", "")
    if given.endswith("/"):
        message = "ends in a slash, with which the datasets library asks for wrong names"
        return Check("HF_ENDPOINT", "warning", message, f"export HF_ENDPOINT={redact(settings.endpoint)}")
    return Check("HF_ENDPOINT", "ok", redact(settings.endpoint) if given else f"not set: {settings.endpoint}")


def check_offline(settings: Settings) -> Check:
    """Tell whether the network is switched off."""
    if not settings.offline:
        return Check("offline mode", "ok", "off")
    name = "HF_HUB_OFFLINE" if settings.environ.get("HF_HUB_OFFLINE") else "TRANSFORMERS_OFFLINE"
    message = f"{name} is set: hubcache fetches nothing, and huggingface_hub asks no server, not even a mirror"
    return Check("offline mode", "warning", message, f"unset {name}, where something is to be fetched")


def check_token(settings: Settings) -> Check:
    """Tell where a token comes from and which origins it is sent to, never the token."""
    try:
        origins = sorted(map(str, bound_tokens(settings, _mirrors(settings))))
    except HubcacheError as error:
        return Check("token", "problem", error.message, error.hint)
    if not settings.token and not origins:
        return Check("token", "ok", "none: public repos can be pulled")
    where = "the variables that the mirrors file names"
    if settings.token_is_from_environment:
        where = "HF_TOKEN" if settings.environ.get("HF_TOKEN") else "HUGGING_FACE_HUB_TOKEN"
    elif settings.token:
        where = "the token file"
    reason = "" if origins or settings.implicit_token else " (HF_HUB_DISABLE_IMPLICIT_TOKEN)"
    message = f"from {where}, sent to {', '.join(origins) or 'nobody'}{reason}"
    if str(Origin.of(settings.endpoint)) not in origins and not reason:
        message += f"; {redact(settings.endpoint)} gets none, unless the mirrors file names one for it"
    return Check("token", "ok", message)


def check_proxies(settings: Settings) -> Check:
    """Tell which proxies are set, and whether huggingface_hub would ask one for a mirror on this machine."""
    proxies = {name: url for name, url in settings.proxies.items() if name != "no"}
    if not proxies:
        return Check("proxies", "ok", "none")
    told = ", ".join(f"{name}: {redact(url if '://' in url else f'//{url}')}" for name, url in proxies.items())
    origin = Origin.of(settings.endpoint)
    direct = settings.proxies.get("no", "").replace(",", " ").split()
    if origin.is_loopback and (origin.scheme in proxies or "all" in proxies) and not {origin.host, "*"} & set(direct):
        message = f"{told}; huggingface_hub would ask it for {origin}, which is this machine"
        return Check("proxies", "warning", message, f"export NO_PROXY={','.join([*direct, origin.host])}")
    return Check("proxies", "ok", told)


def check_network(settings: Settings) -> list[Check]:
    """Ask the Hub and the SparseZoo one question each, at the same time; no answer within seconds is an answer."""
    if settings.offline:
        return [Check(name, "ok", "not asked: offline") for name in ("Hub", "SparseZoo")]
    hasty = replace(settings, connect_timeout=CONNECT_TIMEOUT, read_timeout=CONNECT_TIMEOUT)
    try:
        is_bad = check_mirrors(settings).status == "problem"
        net = compose(replace(hasty, mirrors_file=None, project_mirrors=None) if is_bad else hasty).net
    except HubcacheError as error:
        return [Check("Hub", "problem", error.message, error.hint)]
    found: dict[str, Check] = {}
    threads = [
        # Looking up a name keeps no time limit of ours; a daemon thread does not keep the process alive.
        threading.Thread(target=_find, args=(found, net, "Hub", f"{settings.endpoint}/api/whoami-v2"), daemon=True),
        threading.Thread(target=_find, args=(found, net, "SparseZoo", settings.zoo_api), daemon=True),
    ]
    deadline = time.monotonic() + PATIENCE
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    late = f"no answer within {PATIENCE:.0f} seconds"
    return [found.get(name) or _unreachable(name, late) for name in ("Hub", "SparseZoo")]


def check_answer(net: Net, name: str, url: str) -> Check:
    """Ask one question; whatever the server answers, it is reachable."""
    started = time.monotonic()
    try:
        with net.open(url) as response:
            told = f"{response.origin} answered {response.status} in {time.monotonic() - started:.1f} s"
            if response.status == 401 and response.authenticated:
                return Check(
                    name, "warning", f"{told}: it does not take your token", "hf auth login, or unset HF_TOKEN"
                )
            if response.status >= 500 or response.status == 429:
                return Check(name, "warning", told, "try again later; what is cached works meanwhile")
            return Check(name, "ok", told)
    except HubcacheError as error:
        return _unreachable(name, error.message)


def _find(found: dict[str, Check], net: Net, name: str, url: str) -> None:
    found[name] = check_answer(net, name, url)


def _unreachable(name: str, message: str) -> Check:
    """Write the check of a server that gave no answer; only the Hub's absence stops most people."""
    if name == "Hub":
        return Check(
            name, "problem", message, "check the network and HF_ENDPOINT; HF_HUB_OFFLINE=1 uses the cache alone"
        )
    return Check(name, "warning", message, "only zoo: references need it; SPARSEZOO_API_URL names another")


def _mirrors(settings: Settings) -> MirrorsConfig:
    """Read the mirrors files, or the shipped one alone where they cannot be read."""
    return load() if check_mirrors(settings).status == "problem" else _configured(settings)


def _configured(settings: Settings) -> MirrorsConfig:
    return load([settings.mirrors_file] if settings.mirrors_file else [], project=settings.project_mirrors)
