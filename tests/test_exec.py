"""`hubcache exec --offline` refuses what leaves this machine and nothing else; the variables are not tested here.

No packet leaves the machine, also where nothing is enforced: the addresses are those that RFC 5737 and 3849 keep for
documentation, and no attempt is made before a probe that sends nothing has said that it will be refused.
"""

from __future__ import annotations

import errno
import ipaddress
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hubcache.offline.peers import parse_peer
from hubcache.offline.seccomp import (
    ALLOW,
    ERRNO,
    KILL_PROCESS,
    MACHINES,
    USER_NOTIF,
    Machine,
    Question,
    filter_program,
    this_machine,
)
from hubcache.offline.supervisor import Attempt, judge
from tests.support.commandline import HUBCACHE, CommandLine, Ran, run
from tests.support.waiting import until

NOTHING = "offline: enforced by seccomp; nothing tried to leave this machine\n"
START = """
import asyncio, ctypes, errno, os, socket, struct, subprocess, sys, threading
libc = ctypes.CDLL(None, use_errno=True)
def address(family, host, port=443):
    return struct.pack("=H", family) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)
def tcp(family=socket.AF_INET, kind=socket.SOCK_STREAM):
    made = socket.socket(family, kind)
    made.settimeout(1)
    return made
def udp(family=socket.AF_INET):
    return tcp(family, socket.SOCK_DGRAM)
def checked(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "raw")
try:
    {body}
except OSError as error:
    print(errno.errorcode.get(error.errno, error.errno))
else:
    print("went")
"""


@pytest.fixture
def line(tmp_path: Path) -> CommandLine:
    return CommandLine(tmp_path)


@pytest.fixture(scope="session")
def enforced(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Let nothing be tried before a probe has said that it will be refused."""
    told = CommandLine(tmp_path_factory.mktemp("probe"))("exec", "--offline", "--require-enforcement", "--", "true")
    if "by seccomp" not in told.err:
        pytest.skip(f"seccomp is not to be had here: {told.err}")


def offline(line: CommandLine, body: str, **environ: str) -> Ran:
    script = START.replace("{body}", body.replace("\n", "\n    "))
    return line("exec", "--offline", "--require-enforcement", "--", sys.executable, "-c", script, timeout=60, **environ)


RAW = this_machine() if sys.platform == "linux" else MACHINES["x86_64"]
CONNECT = next(number for number, name in RAW.watched.items() if name == "connect")
MESSAGE = """
name = ctypes.create_string_buffer(address({family}, "192.0.2.1"))
load = ctypes.create_string_buffer(b"x")
part = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(load), 1))
head = struct.pack("=QIIQQQQII", ctypes.addressof(name), 16, 0, ctypes.addressof(part), 1, 0, 0, 0, 0)
whole = ctypes.create_string_buffer(head + bytes(8))
"""
ATTEMPTS = {
    "tcp": ("tcp().connect(('192.0.2.1', 443))", "192.0.2.1:443 (tcp)"),
    "tcp, not blocking": (
        "s = tcp(); s.setblocking(False); checked(-1) if (c := s.connect_ex(('192.0.2.1', 1))) == 115 else None\n"
        "raise OSError(c, '')",
        "192.0.2.1:1 (tcp)",
    ),
    "tcp over IPv6": ("tcp(socket.AF_INET6).connect(('2001:db8::1', 443))", "[2001:db8::1]:443 (tcp)"),
    "IPv4 in IPv6": ("tcp(socket.AF_INET6).connect(('::ffff:192.0.2.1', 443))", "[::ffff:192.0.2.1]:443 (tcp)"),
    "tcp with data in its first packet": (
        "tcp().sendto(b'x', socket.MSG_FASTOPEN, ('192.0.2.1', 443))",
        "192.0.2.1:443 (tcp)",
    ),
    "udp, connected": ("udp().connect(('192.0.2.1', 443))", "192.0.2.1:443 (udp)"),
    "udp, sendto": ("udp().sendto(b'x', ('192.0.2.53', 53))", "192.0.2.53:53 (udp)"),
    "udp, sendmsg": ("udp().sendmsg([b'x'], [], 0, ('192.0.2.53', 53))", "192.0.2.53:53 (udp)"),
    "udp over IPv6": ("udp(socket.AF_INET6).sendto(b'x', ('2001:db8::1', 53))", "[2001:db8::1]:53 (udp)"),
    "udp, sendmmsg": (
        MESSAGE.format(family=2) + "u = udp(); checked(libc.sendmmsg(u.fileno(), whole, 1, 0))",
        "192.0.2.1:443 (udp)",
    ),
    "a datagram that names no family": (
        MESSAGE.format(family=0) + "u = udp(); checked(libc.sendmsg(u.fileno(), whole, 0))",
        "AF_UNSPEC (udp)",
    ),
    "a raw system call": (
        f"s = tcp(); checked(libc.syscall({CONNECT}, s.fileno(), address(2, '192.0.2.1'), 16))",
        "192.0.2.1:443 (tcp)",
    ),
    "another thread": (
        "told = []; t = threading.Thread(target=lambda: told.append(tcp().connect_ex(('192.0.2.1', 443))))\n"
        "t.start(); t.join(); raise OSError(told[0], '')",
        "192.0.2.1:443 (tcp)",
    ),
    "asyncio": ("asyncio.run(asyncio.open_connection('192.0.2.1', 443))", "192.0.2.1:443 (tcp)"),
    "a program that forks and starts a session": (
        "r, w = os.pipe()\n"
        "if not os.fork():\n"
        "    os.setsid()\n"
        "    if not os.fork(): os.write(w, bytes([tcp().connect_ex(('192.0.2.1', 443))]))\n"
        "    os._exit(0)\n"
        "raise OSError(os.read(r, 1)[0], '')",
        "192.0.2.1:443 (tcp)",
    ),
}


@pytest.mark.parametrize("way", ATTEMPTS)
def test_every_way_out_is_refused_at_once_and_reported(way: str, line: CommandLine, enforced: None) -> None:
    body, peer = ATTEMPTS[way]
    told = offline(line, body)
    assert told.out == "ECONNREFUSED\n", told.err
    assert re.fullmatch(rf"refused: {re.escape(peer)}, once, by python[\d.]*\[\d+\]\n", told.err)


SOCKETS = {
    "a packet socket": ("socket.socket(socket.AF_PACKET, socket.SOCK_RAW)", "EAFNOSUPPORT", "AF_PACKET"),
    "a socket to a hypervisor": ("socket.socket(socket.AF_VSOCK)", "EAFNOSUPPORT", "AF_VSOCK"),
    "SCTP": ("socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132)", "EPROTONOSUPPORT", "SCTP"),
    "SCTP by its kind": ("socket.socket(socket.AF_INET6, socket.SOCK_SEQPACKET)", "EPROTONOSUPPORT", "SCTP"),
}


@pytest.mark.parametrize("kind", SOCKETS)
def test_a_socket_that_goes_out_unseen_is_not_made(kind: str, line: CommandLine, enforced: None) -> None:
    body, code, name = SOCKETS[kind]
    told = offline(line, body)
    assert told.out == f"{code}\n"
    assert f"refused: a socket of {name}, once, by " in told.err


def test_a_name_that_has_to_be_looked_up_elsewhere_is_reported(line: CommandLine, enforced: None) -> None:
    resolvers = re.findall(r"^nameserver\s+([\d.]+)", Path("/etc/resolv.conf").read_text(), re.MULTILINE)
    if not resolvers or ipaddress.ip_address(resolvers[0]).is_loopback:
        pytest.skip("the resolver of this machine is on loopback")
    told = offline(line, "socket.getaddrinfo('hub.example', 443)")
    assert "went" not in told.out
    assert f"refused: {resolvers[0]}:53 (udp), " in told.err


def test_io_uring_cannot_be_set_up(line: CommandLine, enforced: None) -> None:
    told = offline(line, "checked(libc.syscall(425, 8, ctypes.create_string_buffer(120)))")
    assert told.out == "EPERM\n"


@pytest.mark.skipif(RAW is not MACHINES["x86_64"], reason="these are x86-64's other ABIs")
@pytest.mark.parametrize(
    "body",
    [
        f"libc.syscall({0x40000000 | CONNECT}, tcp().fileno(), address(2, '192.0.2.1'), 16)",
        # mov eax, 20 (getpid); int 0x80; ret
        "import mmap\ncode = mmap.mmap(-1, 4096, prot=7); code.write(bytes.fromhex('b814000000cd80c3'))\n"
        "ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()",
    ],
    ids=["x32", "32-bit"],
)
def test_a_call_by_another_abi_ends_the_program(body: str, line: CommandLine, enforced: None) -> None:
    told = offline(line, body)
    # A kernel that has no 32-bit calls ends it by itself.
    assert told.code in {128 + signal.SIGSYS, 128 + signal.SIGSEGV}
    assert told.out == ""


def test_attempts_are_counted(line: CommandLine, enforced: None) -> None:
    told = offline(line, "[tcp().connect_ex(('192.0.2.1', 443)) for _ in range(3)]\nudp().connect(('192.0.2.2', 1))")
    first, second = told.err.splitlines()
    assert first.startswith("refused: 192.0.2.1:443 (tcp), 3 times, by ")
    assert second.startswith("refused: 192.0.2.2:1 (udp), once, by ")


def test_a_scan_is_summed_up(line: CommandLine, enforced: None) -> None:
    told = offline(line, "[udp().connect_ex(('192.0.2.1', port)) for port in range(10, 1210)]")
    *lines, last = told.err.splitlines()
    assert len(lines) == 50
    assert last == "refused: 1150 more"


def test_a_name_of_a_process_cannot_write_to_the_terminal(line: CommandLine, enforced: None) -> None:
    told = offline(line, "open('/proc/self/comm', 'w').write('a\\x1b[2J\\nb')\ntcp().connect(('192.0.2.1', 443))")
    assert ", by a?[2J?b[" in told.err


def test_an_address_that_is_no_memory_is_the_programs_own_mistake(line: CommandLine, enforced: None) -> None:
    told = offline(line, f"s = tcp(); checked(libc.syscall({CONNECT}, s.fileno(), ctypes.c_void_p(16), 16))")
    assert (told.out, told.err) == ("EFAULT\n", NOTHING)


@pytest.mark.parametrize("body", ["udp().connect(('192.0.2.1', 443))", "tcp().connect(('192.0.2.1', 443))"])
def test_a_program_that_outlives_the_command_gets_no_further(body: str, line: CommandLine, enforced: None) -> None:
    told = line.home / "told"
    survivor = (
        f"import time\nwhile os.getppid() == parent: time.sleep(0.01)\ntime.sleep(0.3)\n"
        f"try:\n    {body}\n    code = 0\nexcept OSError as e: code = e.errno\n"
        f"open({str(told)!r} + '.new', 'w').write(str(code)); os.rename({str(told)!r} + '.new', {str(told)!r})\n"
        f"os._exit(0)"
    )
    forking = "parent = os.getpid()\nif not os.fork():\n    os.setsid(); null = os.open(os.devnull, os.O_RDWR)\n" + (
        "    [os.dup2(null, n) for n in range(3)]\n    exec(" + repr(survivor) + ")"
    )
    assert offline(line, forking).code == 0
    until(told.exists, "the survivor's word")
    assert int(told.read_text()) in {errno.ENOSYS, errno.ECONNREFUSED}


HERE = {
    "127.0.0.1": ("socket.AF_INET", "'127.0.0.1'"),
    "127.1.2.3": ("socket.AF_INET", "'127.1.2.3'"),
    "0.0.0.0": ("socket.AF_INET", "'0.0.0.0'"),
    "::1": ("socket.AF_INET6", "'::1'"),
    "::": ("socket.AF_INET6", "'::'"),
    "::ffff:127.0.0.1": ("socket.AF_INET6", "'::ffff:127.0.0.1'"),
}


@pytest.mark.parametrize("host", HERE)
@pytest.mark.parametrize("kind", ["tcp", "udp, connected", "udp, sendto", "udp, sendmsg"])
def test_loopback_stays_reachable(host: str, kind: str, line: CommandLine, enforced: None) -> None:
    family, name = HERE[host]
    everywhere = "'::'" if "6" in family else "'0.0.0.0'"
    served = (
        f"server = {kind[:3]}({family}); server.bind(({everywhere}, 0)); there = ({name}, server.getsockname()[1])\n"
    )
    talk = {
        "tcp": "server.listen(); c = tcp({0}); c.connect(there); server.accept()[0].sendall(b'hi'); print(c.recv(9))",
        "udp, connected": "c = udp({0}); c.connect(there); c.send(b'hi'); print(server.recv(9))",
        "udp, sendto": "udp({0}).sendto(b'hi', there); print(server.recv(9))",
        "udp, sendmsg": "udp({0}).sendmsg([b'hi'], [], 0, there); print(server.recv(9))",
    }[kind].format(family)
    told = offline(line, served + talk)
    assert (told.out, told.err) == ("b'hi'\nwent\n", NOTHING)


def test_a_server_of_this_machine_outside_the_command_is_reachable(line: CommandLine, enforced: None) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    server = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "0"]
    with subprocess.Popen(server, cwd=line.home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as here:
        assert here.stdout is not None
        port = re.search(r"port (\d+)", here.stdout.readline())
        assert port is not None
        (line.home / "file").write_text("it is here")
        told = line("exec", "--offline", "--", "curl", "-sS", "-m", "9", f"http://localhost:{port[1]}/file")
        here.terminate()
    assert (told.out, told.err) == ("it is here", NOTHING)


def test_curl_is_refused_at_once(line: CommandLine, enforced: None) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    told = line("exec", "--offline", "--", "curl", "-sS", "-m", "1", "http://192.0.2.1/")
    assert told.code == 7  # could not connect; a timeout would be 28
    assert re.search(r"^refused: 192\.0\.2\.1:80 \(tcp\), once, by curl\[\d+\]$", told.err, re.MULTILINE)


QUIET = {
    "a descriptor over a unix socket": (
        "a, b = socket.socketpair(); socket.send_fds(a, [b'x'], [0]); print(len(socket.recv_fds(b, 9, 9)[1]))"
    ),
    "a unix server": (
        "s = socket.socket(socket.AF_UNIX); s.bind('s'); s.listen()\n"
        "socket.socket(socket.AF_UNIX).connect('s'); s.accept(); print(1)"
    ),
    "netlink": "print(len(socket.if_nameindex()) > 0 and 1)\nsocket.getaddrinfo('localhost', 80)",
    "a datagram socket that is disconnected": "u = udp(); checked(libc.connect(u.fileno(), bytes(16), 16)); print(1)",
    "processes": (
        "from multiprocessing import get_context\n"
        "with get_context('fork').Pool(2) as pool: print(sum(pool.map(int, '010')))"
    ),
}


@pytest.mark.parametrize("what", QUIET)
def test_what_is_no_network_works_as_ever(what: str, line: CommandLine, enforced: None) -> None:
    told = offline(line, f"os.chdir({str(line.home)!r})\n" + QUIET[what])
    assert (told.out, told.err) == ("1\nwent\n", NOTHING)


def test_huggingface_hub_makes_no_attempt(line: CommandLine, enforced: None) -> None:
    body = (
        "from huggingface_hub import snapshot_download\nfrom huggingface_hub.errors import LocalEntryNotFoundError\n"
        "try: snapshot_download('org/name')\nexcept LocalEntryNotFoundError: print('asked the cache')"
    )
    told = offline(line, body, HF_ENDPOINT="http://192.0.2.1")
    assert told.out == "asked the cache\nwent\n"
    assert NOTHING in told.err


def test_a_program_that_ignores_its_environment_is_caught(line: CommandLine, enforced: None) -> None:
    body = (
        "del os.environ['HF_HUB_OFFLINE'], os.environ['TRANSFORMERS_OFFLINE']\n"
        "from huggingface_hub import hf_hub_url, get_session\nget_session().head(hf_hub_url('org/name', 'x'))"
    )
    told = offline(line, body, HF_ENDPOINT="http://192.0.2.1")
    assert told.code != 0
    assert "refused: 192.0.2.1:80 (tcp)" in told.err


def test_no_proxy_is_asked_on_the_way_out(line: CommandLine, enforced: None) -> None:
    told = offline(
        line, "print([n for n in os.environ if n.lower().endswith('s_proxy')])", https_proxy="http://[::1]:9"
    )
    assert told.out == "[]\nwent\n"


def test_one_exec_inside_another_is_watched_by_the_outer_one(line: CommandLine, enforced: None) -> None:
    inner = [str(HUBCACHE), "exec", "--offline", "--require-enforcement", "--"]
    told = line("exec", "--offline", "--", *inner, sys.executable, "-c", START.replace("{body}", ATTEMPTS["tcp"][0]))
    assert told.out == "ECONNREFUSED\n", told.err
    first, second = told.err.splitlines()
    assert first.startswith("offline: enforced by the hubcache exec around this one")
    assert second.startswith("refused: 192.0.2.1:443 (tcp), once, by python")


def test_it_needs_no_privilege(line: CommandLine, enforced: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("the other tests show it: they do not run as root")
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("bash is not installed")
    script = (
        "import os, sys\nfrom hubcache.offline.run import run_offline\n"
        "os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        "say = lambda text: print(text, file=sys.stderr)\n"
        f"command = [{bash!r}, '-c', 'id -u; : > /dev/tcp/192.0.2.1/443']\n"
        "sys.exit(run_offline(command, {'PATH': os.environ['PATH']}, require=True, notify=say))"
    )
    told = run(sys.executable, "-c", script, timeout=60, PATH=os.environ["PATH"])
    assert told.out == "65534\n"
    assert "Connection refused" in told.err
    assert "refused: 192.0.2.1:443 (tcp), once, by bash[" in told.err


CODES = {"exit 0": 0, "exit 7": 7, "exit 130": 130, "kill -KILL $$": 137, "kill -TERM $$": 143, "kill -SEGV $$": 139}


@pytest.mark.parametrize("script", CODES)
@pytest.mark.parametrize("mode", [[], ["--offline"]], ids=["plain", "offline"])
def test_the_exit_code_is_the_commands_own(script: str, mode: list[str], line: CommandLine) -> None:
    # A shell tells how it ended: 128 + N for a signal, whether it came from hubcache or from what hubcache became.
    told = run("sh", "-c", '"$@"; echo $?', "sh", str(HUBCACHE), "exec", *mode, "--", "sh", "-c", script,
               timeout=60, **line.environ)  # fmt: skip
    assert told.out == f"{CODES[script]}\n"


@pytest.mark.parametrize("mode", [[], ["--offline"]], ids=["plain", "offline"])
@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc/passwd", 126), ("/", 126)])
def test_a_command_that_cannot_be_run_is_told_as_a_shell_does(
    command: str, code: int, mode: list[str], line: CommandLine
) -> None:
    told = line("exec", *mode, "--", command)
    assert told.code == code
    assert told.err.startswith(f"error: {command}: ")


@pytest.mark.parametrize("mode", [[], ["--offline"]], ids=["plain", "offline"])
def test_arguments_input_and_descriptors_reach_the_command(mode: list[str], line: CommandLine) -> None:
    read, write = os.pipe()
    os.write(write, b"from a descriptor")
    os.close(write)
    script = f"import os, sys; print(sys.stdin.read(), os.read({read}, 99).decode(), *sys.argv[1:])"
    told = subprocess.run(
        [HUBCACHE, "exec", *mode, "--", sys.executable, "-c", script, "--offline", "--", "-x"], input="from stdin,",
        capture_output=True, text=True, timeout=60, check=False, env=line.environ, pass_fds=[read],
    )  # fmt: skip
    os.close(read)
    assert told.stdout == "from stdin, from a descriptor --offline -- -x\n"


def test_plain_exec_becomes_the_command(line: CommandLine) -> None:
    with subprocess.Popen([HUBCACHE, "exec", "--", "sh", "-c", "echo $$"], stdout=subprocess.PIPE, env=line.environ,
                          text=True) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.read() == f"{process.pid}\n"


@pytest.mark.parametrize("mode", [[], ["--offline"]], ids=["plain", "offline"])
def test_a_closed_pipe_ends_the_command_as_it_does_without_hubcache(mode: list[str], line: CommandLine) -> None:
    ignored = int(line("exec", *mode, "--", "grep", "SigIgn", "/proc/self/status").out.split()[1], 16)
    assert not ignored & (1 << (signal.SIGPIPE - 1))


def test_the_environment_of_the_command_is_the_one_that_env_prints(line: CommandLine) -> None:
    script = "import json, os; print(json.dumps(dict(os.environ)))"
    rows = line("env", "--json", HF_ENDPOINT="http://127.0.0.1:9").facts
    got = line("exec", "--", sys.executable, "-c", script, HF_ENDPOINT="http://127.0.0.1:9").facts
    assert {row["name"]: row["value"] for row in rows}.items() <= got.items()


TRAPS = "import signal, sys, time\nfor n in (2, 15): signal.signal(n, lambda n, _: sys.exit(40 + n))\n"
WAITS = "print('ready', flush=True)\nwhile True: time.sleep(0.05)"


def interrupted(line: CommandLine, script: str, number: int, *, group: bool) -> int:
    """Start a command in a process group of its own, send a signal when it is ready, return the exit code."""
    command = [HUBCACHE, "exec", "--offline", "--", sys.executable, "-c", script]
    with subprocess.Popen(
        command, env=line.environ, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, number) if group else os.kill(process.pid, number)
        return process.wait(timeout=30)


def test_ctrl_c_is_the_commands_to_answer(line: CommandLine) -> None:
    assert interrupted(line, TRAPS + WAITS, signal.SIGINT, group=True) == 42


def test_a_command_that_ctrl_c_ends_ends_hubcache_the_same_way(line: CommandLine) -> None:
    script = "import signal, time\nsignal.signal(2, signal.SIG_DFL)\n" + WAITS
    assert interrupted(line, script, signal.SIGINT, group=True) == -signal.SIGINT


def test_a_request_to_end_is_passed_on(line: CommandLine) -> None:
    assert interrupted(line, TRAPS + WAITS, signal.SIGTERM, group=False) == 55


# The other ways of enforcement, where this machine has them: the first is switched off, as a kernel without it would.
WITHOUT = """
import sys
from hubcache.offline import namespace, seccomp
def missing(): raise OSError(38, "switched off by the test")
seccomp.listen = missing
if sys.argv.pop(1) == "none": namespace.require_support = missing
from hubcache_cli.main import main
main()
"""


def degraded(line: CommandLine, left: str, *arguments: str) -> Ran:
    return run(sys.executable, "-c", WITHOUT, left, "exec", "--offline", *arguments, timeout=60, **line.environ)


def test_a_network_namespace_is_the_second_choice(line: CommandLine) -> None:
    script = START.replace("{body}", "s = udp(); s.bind(('127.0.0.1', 0)); udp().sendto(b'x', s.getsockname())\n    "
                                     "s.recv(1); print(os.getuid()); tcp().connect(('192.0.2.1', 443))")  # fmt: skip
    if degraded(line, "namespace", "--require-enforcement", "--", "true").code != 0:
        pytest.skip("no network namespace is to be had here")
    told = degraded(line, "namespace", "--require-enforcement", "--", sys.executable, "-c", script)
    assert told.out == f"{os.getuid()}\nENETUNREACH\n"
    assert told.err.startswith("offline: enforced by a network namespace; what is refused is not listed")


def test_where_nothing_can_be_enforced_that_is_said_aloud(line: CommandLine) -> None:
    told = degraded(line, "none", "--", "sh", "-c", "echo $HF_HUB_OFFLINE; exit 3")
    assert (told.code, told.out) == (3, "1\n")
    assert told.err.startswith("WARNING: nothing is enforced")


def test_required_enforcement_runs_nothing_without_it(line: CommandLine) -> None:
    told = degraded(line, "none", "--require-enforcement", "--", "echo", "ran")
    assert (told.code, told.out) == (1, "")
    assert "error: offline cannot be enforced here: seccomp: switched off by the test; network namespace" in told.err
    assert "\nhint: " in told.err


def test_requiring_enforcement_without_offline_is_a_mistake(line: CommandLine) -> None:
    assert line("exec", "--require-enforcement", "--", "true").code == 2


@pytest.mark.parametrize("system", ["darwin", "win32", "freebsd14"])
def test_the_package_can_be_imported_on_any_system(system: str) -> None:
    hidden = "import subprocess, sys, typer; sys.platform = sys.argv[1]; sys.modules['fcntl'] = None\n"
    told = run(sys.executable, "-c", hidden + "import hubcache.offline.run", system,
               timeout=60, PATH=os.environ["PATH"])  # fmt: skip
    assert (told.code, told.err) == (0, "")


def outcome(machine: Machine, arch: int, call: int, *arguments: int) -> int:
    """Run the filter as the kernel does."""
    facts = struct.pack("=iIQ6Q", struct.unpack("=i", struct.pack("=I", call))[0], arch, 0,
                        *(*arguments, *(6 - len(arguments)) * [0]))  # fmt: skip
    program, at, loaded = filter_program(machine), 0, 0
    while True:
        code, if_true, if_false, k = program[at]
        at += 1
        if code == 0x06:
            return k
        if code == 0x20:
            (loaded,) = struct.unpack_from("=I", facts, k)
        elif code in {0x15, 0x35}:
            at += if_true if (loaded == k if code == 0x15 else loaded >= k) else if_false


@pytest.mark.parametrize("name", MACHINES)
def test_the_filter_asks_about_every_call_that_names_a_peer(name: str) -> None:
    machine = MACHINES[name]
    asked = [outcome(machine, machine.audit_arch, call, 3, 4096, 16) for call in machine.watched]
    assert asked == [USER_NOTIF] * 3
    for pointer in (1, 1 << 32, 0x7FFF00000000):
        assert outcome(machine, machine.audit_arch, machine.sendto, 3, 4096, 1, 0, pointer, 16) == USER_NOTIF
    assert outcome(machine, machine.audit_arch, machine.sendto, 3, 4096, 1, 0, 0, 0) == ALLOW


@pytest.mark.parametrize("name", MACHINES)
@given(call=st.integers(0, 0xFFFFFFFF), arch=st.integers(0, 0xFFFFFFFF))
def test_the_filter_ends_what_calls_by_another_abi(name: str, call: int, arch: int) -> None:
    machine = MACHINES[name]
    if arch != machine.audit_arch:
        assert outcome(machine, arch, call) == KILL_PROCESS
    elif machine.x32_bit and call >= machine.x32_bit:
        assert outcome(machine, machine.audit_arch, call) == KILL_PROCESS


@pytest.mark.parametrize("name", MACHINES)
@given(call=st.integers(0, 500), family=st.integers(0, 50))
def test_the_filter_lets_every_other_call_pass(name: str, call: int, family: int) -> None:
    machine = MACHINES[name]
    got = outcome(machine, machine.audit_arch, call, family)
    if call in machine.watched or (call == machine.socket and family not in {1, 16}):
        assert got == USER_NOTIF
    else:
        assert got == (ERRNO | errno.EPERM if call in {425, 426, 427} else ALLOW)


@given(st.binary(max_size=40), st.booleans())
def test_no_address_makes_the_parser_fail_or_hides_an_internet_host(address: bytes, connecting: bool) -> None:
    peer = parse_peer(address, connecting=connecting)
    if peer is not None and peer.is_here and address[:2] == b"\x02\x00":
        assert address[4] == 127 or address[4:8] == bytes(4)


@given(st.ip_addresses(), st.integers(0, 65535))
def test_only_loopback_and_no_address_at_all_are_here(ip: ipaddress.IPv4Address, port: int) -> None:
    tail = struct.pack("!H", port) + (ip.packed + bytes(8) if ip.version == 4 else bytes(4) + ip.packed + bytes(4))
    peer = parse_peer(struct.pack("=H", 2 if ip.version == 4 else 10) + tail, connecting=True)
    mapped = getattr(ip, "ipv4_mapped", None) or ip
    assert peer is not None
    assert peer.is_here == (mapped.is_loopback or mapped.is_unspecified)


def test_one_bad_message_of_several_refuses_them_all() -> None:
    names = [
        struct.pack("=H", 2) + b"\0\x35" + bytes(map(int, h.split("."))) + bytes(8) for h in ("127.0.0.1", "192.0.2.1")
    ]
    memory = {64 * n: struct.pack("=QI", 1000 + n, 16) for n in range(2)} | {
        1000 + n: name for n, name in enumerate(names)
    }
    question = Question(1, 1, "sendmmsg", (3, 0, 2, 0, 0, 0))
    assert judge(question, lambda address, size: memory[address][:size]) == (errno.ECONNREFUSED, "192.0.2.1:53")


def test_an_attempt_reads_as_a_sentence() -> None:
    attempt = Attempt("93.184.216.34:443", "tcp", "python[1234]")
    assert attempt.line(3) == "refused: 93.184.216.34:443 (tcp), 3 times, by python[1234]"


@pytest.mark.slow
def test_many_connections_from_many_threads_are_all_answered(line: CommandLine, enforced: None) -> None:
    body = (
        "server = tcp(); server.bind(('127.0.0.1', 0)); server.listen(512)\n"
        "def many():\n"
        "    for _ in range(100): tcp().connect(server.getsockname()); tcp().connect_ex(('192.0.2.1', 443))\n"
        "threads = [threading.Thread(target=many) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]"
    )
    started = time.monotonic()
    told = offline(line, body)
    assert "refused: 192.0.2.1:443 (tcp), 400 times" in told.err
    assert time.monotonic() - started < 30
