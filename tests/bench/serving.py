"""What the server's benchmarks share: the servers as processes, what they cost, and a cache laid out without a pull.

It measures nothing by itself. nginx is left out where there is none; olah is installed from PyPI, once, in a venv
outside the checkout.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.bench.drain import Drained
from tests.bench.limited_origin import cdn_address
from tests.bench.measure import ROOT, CommandFailed, Run
from tests.support.httpd import HOST, Body
from tests.support.hubrepo import HubRepo
from tests.support.loophub import folder_files
from tests.support.serving import Served

OLAH = "0.5.4"
READY = 30.0  # seconds
TICKS = os.sysconf("SC_CLK_TCK")
NGINX = """daemon off; worker_processes 1; {user} pid {place}/nginx.pid; error_log {place}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log off; sendfile on; keepalive_requests 100000; client_body_temp_path {place}/nginx.body;
    server {{ listen 127.0.0.1:{port}; root {root}; }}
}}
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A running server: its address and its process, whose children count as it."""

    endpoint: str
    pid: int

    @property
    def pids(self) -> list[int]:
        """The process and those it has started."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return [self.pid, *map(int, children)]

    @property
    def cpu(self) -> float:
        """Seconds of user and system time so far, to a hundredth."""
        return sum(_cpu_ticks(pid) for pid in self.pids) / TICKS

    @property
    def peak_rss(self) -> int:
        """Peak resident bytes of the largest of its processes."""
        return max(_peak_rss(pid) for pid in self.pids)


def _cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _peak_rss(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise CommandFailed(f"process {pid} has no peak")


@contextmanager
def hubcache(place: Path, hub: str | None = None) -> Iterator[Peer]:
    """Serve the cache at `place`/hub, filled from a hub, or offline where there is none."""
    served = Served(place, "--offline") if hub is None else Served(place, HF_ENDPOINT=hub)
    with served as server:
        yield Peer(server.endpoint, server.pid)
        if not server.is_running():
            raise CommandFailed(f"hubcache serve ended: {server.log}")


@contextmanager
def nginx(place: Path, root: Path) -> Iterator[Peer]:
    """Serve a folder with sendfile and one worker; as root it has to be told not to change its user.

    tcp_nopush stays off, as it is by default: on loopback it costs nginx two thirds more CPU time.
    """
    port = free_port()
    user = "user root;" if os.geteuid() == 0 else ""
    config = place / "nginx.conf"
    config.write_text(NGINX.format(place=place, port=port, root=root, user=user))
    with _process([nginx_command() or "nginx", "-p", str(place), "-c", str(config)], place / "nginx.out", port) as peer:
        yield peer


def nginx_command() -> str | None:
    """Return nginx's command, None where there is none; Debian keeps it off a user's path."""
    return shutil.which("nginx", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")


@contextmanager
def bare(folder: Path) -> Iterator[Peer]:
    """Serve a folder with aiohttp alone, at /file/."""
    command = [sys.executable, "-m", "tests.bench.bare", "--dir", str(folder)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield Peer(process.stdout.readline().strip(), process.pid)
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()


@contextmanager
def olah(place: Path, upstream: str, large: str) -> Iterator[Peer]:
    """Serve what `upstream` has; `large` is the path of a file there that it redirects to its CDN.

    It asks upstream at every HEAD of a file; told to be offline, it is hardly faster at them.
    """
    port = free_port()
    place.mkdir()
    mirror = f"{HOST}:{port}"
    netlocs = {
        "hf": urlsplit(upstream).netloc,
        "hf-lfs": urlsplit(cdn_address(upstream + large)).netloc,
        "mirror": mirror,
        "mirror-lfs": mirror,
    }
    command = [str(olah_command()), "--host", HOST, "--port", str(port)]
    command += ["--hf-scheme", "http", "--mirror-scheme", "http"]
    command += [word for name, netloc in netlocs.items() for word in (f"--{name}-netloc", netloc)]
    command += ["--repos-path", str(place / "repos"), "--log-path", str(place / "logs")]
    with _process(command, place / "olah.out", port) as peer:
        yield peer


def olah_command() -> Path:
    """Return olah's command, installed the first time it is asked for.

    Raises:
        CommandFailed: it cannot be installed.
    """
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    venv = base / "hubcache-tests" / f"olah-{OLAH}"
    command = venv / "bin" / "olah-cli"
    if not command.exists():
        pip = str(venv / "bin" / "pip")
        for step in ([sys.executable, "-m", "venv", str(venv)], [pip, "install", "-q", f"olah=={OLAH}"]):
            done = subprocess.run(step, capture_output=True, text=True, timeout=300, check=False)
            if done.returncode:
                raise CommandFailed(f"olah {OLAH} cannot be installed (--no-olah leaves it out): {done.stderr}")
    return command


@contextmanager
def _process(command: Sequence[str], log: Path, port: int) -> Iterator[Peer]:
    """Run a server that says nothing when it is ready; its output goes to a file."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        _wait_for(port, process, log)
        yield Peer(f"http://{HOST}:{port}", process.pid)
    finally:
        process.terminate()
        process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + READY
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError):
            socket.create_connection((HOST, port), timeout=1).close()
            return
        time.sleep(0.02)
    raise CommandFailed(f"{process.args!r} does not answer: {log.read_text(errors='replace')[-2000:]}")


def free_port() -> int:
    """Return a port that is free now, for servers that cannot choose one."""
    with socket.socket() as bound:
        bound.bind((HOST, 0))
        return int(bound.getsockname()[1])


def lay_out(cache: Path, name: str, files: dict[str, Body]) -> str:
    """Write a model into a cache as huggingface_hub would have, files by hard links; return its commit.

    A hub that is given the same files under the same name has the same commit.
    """
    repo = HubRepo("model", name)
    commit = repo.add_commit("main", files, replace=True)
    folder = cache / f"models--{name.replace('/', '--')}"
    for part in ("blobs", "refs", "trees"):
        (folder / part).mkdir(parents=True)
    rows: dict[str, Any] = {}
    for path, file in repo.commits[commit].files.items():
        blob, link = folder / "blobs" / file.etag, folder / "snapshots" / commit / path
        if not blob.exists():
            _place(file.body, blob)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to("../" * (2 + path.count("/")) + f"blobs/{file.etag}")
        large = {"lfs_sha256": file.sha256, "lfs_size": file.size} if file.sha256 else {}
        rows[path] = {"size": file.size, "blob_id": file.oid, **large}
    (folder / "trees" / f"{commit}.json").write_text(json.dumps({"format_version": 1, "files": rows}))
    (folder / "refs" / "main").write_text(commit)
    return commit


def _place(body: Body, blob: Path) -> None:
    if isinstance(body, bytes):
        blob.write_bytes(body)
    else:
        blob.hardlink_to(body)


def lay_out_folder(cache: Path, name: str, folder: Path) -> str:
    """Write a folder's files into a cache as one model; return its commit."""
    return lay_out(cache, name, dict(folder_files(folder)))


def check_served(url: str, size: int, digest: str) -> None:
    """Fetch a file once, so that it is warm, and hash it: a fast server of wrong bytes is no peer.

    Raises:
        CommandFailed: it is another file.
    """
    hasher, got = hashlib.sha256(), 0
    with urllib.request.urlopen(url, timeout=60) as answer:
        while piece := answer.read(1 << 20):
            hasher.update(piece)
            got += len(piece)
    if (got, hasher.hexdigest()) != (size, digest):
        raise CommandFailed(f"{url}: {got} bytes with sha256 {hasher.hexdigest()}, not {size} with {digest}")


@dataclass(frozen=True, slots=True)
class Taken:
    """What the light client told: seconds, its own CPU time and peak resident bytes, and what each connection got."""

    wall: float
    cpu: float
    rss: int
    clients: list[Drained]

    @property
    def received(self) -> int:
        """Bytes of all bodies."""
        return sum(client.received for client in self.clients)


def drain(urls: Sequence[str], **options: float) -> Taken:
    """Run the light client in a process of its own.

    Raises:
        CommandFailed: it did not end well, or a client was not answered with 200.
    """
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.bench.drain", *urls, *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise CommandFailed(f"{urls[0]}: {done.stderr}")
    told: dict[str, Any] = json.loads(done.stdout)
    clients = [Drained(**client) for client in told["clients"]]
    if any(client.status != HTTPStatus.OK for client in clients):
        raise CommandFailed(f"{urls[0]}: {[client.status for client in clients]} {done.stderr}")
    return Taken(told["wall"], told["cpu"], told["rss"], clients)


def whole(taken: Taken, size: int) -> Taken:
    """Return what was taken if it is so many bytes.

    Raises:
        CommandFailed: it is not.
    """
    if taken.received != size:
        raise CommandFailed(f"{taken.received} bytes came, not {size}")
    return taken


def cost(peer: Peer, before: float, wall: float) -> Run:
    """Return what a server used since its CPU time was `before`; the peak is that of its life."""
    return Run(wall, peer.cpu - before, peer.peak_rss, 0)
