"""Running a command under an environment, and where it is asked for without a way out; which environment is not told.

What holds a command back is the first of these that this system has: seccomp, which lists what was tried and leaves
loopback as it is; a network namespace, which has a loopback of its own; nothing, and then that is said aloud.
"""

from __future__ import annotations

import errno
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import TypeVar

from hubcache.errors import HubcacheError
from hubcache.offline import namespace, seccomp
from hubcache.offline.peers import PROBE
from hubcache.offline.supervisor import Attempt, Supervisor

NOT_EXECUTABLE, NOT_FOUND = 126, 127
MOST_LINES = 50

Notify = Callable[[str], None]
T = TypeVar("T")


def run_command(command: Sequence[str], environ: Mapping[str, str], *, notify: Notify) -> int:
    """Become the command, as execvp(3) does; return only where that cannot be: the exit code a shell would give.

    On Windows, which cannot replace a process, wait for it and return its exit code.
    """
    try:
        if sys.platform == "win32":
            return subprocess.run(command, env=dict(environ), check=False).returncode  # noqa: S603  # the command that was asked for
        _restore_signals()
        sys.stdout.flush()
        sys.stderr.flush()
        os.execvpe(command[0], list(command), dict(environ))  # noqa: S606  # the command that was asked for
    except OSError as error:
        return _report_missing(command[0], error, notify)


def run_offline(command: Sequence[str], environ: Mapping[str, str], *, require: bool, notify: Notify) -> int:
    """Run a command with every connection beyond this machine refused; return its exit code, 128 + N for signal N.

    Raises:
        HubcacheError: this system can refuse nothing, and `require` says that it must.
    """
    if is_enforced():
        notify("offline: enforced by the hubcache exec around this one, which will list what was refused")
        return run_command(command, environ, notify=notify)
    reasons = []
    try:
        watched = _Watched(command, environ)
    except OSError as error:
        reasons.append(f"seccomp: {error.strerror or error}")
    else:
        return _run_watched(watched, command[0], notify)
    try:
        namespace.require_support()
        namespace.enter()
    except OSError as error:
        reasons.append(f"network namespace: {error.strerror or error}")
    else:
        notify("offline: enforced by a network namespace; what is refused is not listed, and loopback is its own")
        return run_command(command, environ, notify=notify)
    why = "; ".join(reasons)
    if require:
        raise HubcacheError(
            f"offline cannot be enforced here: {why}",
            hint="without --require-enforcement the environment variables alone ask the command to stay offline",
        )
    notify(f"WARNING: nothing is enforced, the command is only asked to stay offline ({why})")
    return run_command(command, environ, notify=notify)


def is_enforced() -> bool:
    """Tell whether connections of this thread are refused by a filter such as ours; no packet is sent to find out.

    A datagram socket that is connected sends nothing, so nothing but a filter says that the connection was refused.
    """
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            return probe.connect_ex(PROBE) == errno.ECONNREFUSED
    except OSError:
        return False


class _Watched:
    """A command about to be started by a thread that is under the filter: the thread is bound by it, we are not.

    Raises:
        OSError: the filter is not to be had, or refuses nothing.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        seccomp.require_support()
        self._command, self._environ = list(command), dict(environ)
        self._listener: queue.SimpleQueue[int | OSError] = queue.SimpleQueue()
        self._refuses: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._process: queue.SimpleQueue[subprocess.Popen[bytes] | OSError] = queue.SimpleQueue()
        self._may_start: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._start, name="offline-starter", daemon=True)
        self._thread.start()
        self.supervisor = Supervisor(_take(self._listener))
        if not self._refuses.get():
            self._may_start.put(False)
            self.supervisor.stop()
            raise OSError(errno.ENOSYS, "the filter is there and refuses nothing")

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command.

        Raises:
            OSError: it cannot be executed.
        """
        self._may_start.put(True)
        return _take(self._process)

    def _start(self) -> None:
        try:
            self._listener.put(seccomp.listen())
        except OSError as error:
            self._listener.put(error)
            return
        self._refuses.put(is_enforced())
        if not self._may_start.get():
            return
        try:
            # As with exec, descriptors that are meant for the command's children stay open.
            process = subprocess.Popen(self._command, env=self._environ, close_fds=False)  # noqa: S603  # as asked
        except OSError as error:
            self._process.put(error)
        else:
            self._process.put(process)


def _take(told: queue.SimpleQueue[T | OSError]) -> T:
    got = told.get()
    if isinstance(got, OSError):
        raise got
    return got


def _run_watched(watched: _Watched, name: str, notify: Notify) -> int:
    is_interruptible = signal.getsignal(signal.SIGINT) != signal.SIG_IGN
    # Ctrl-C goes to the whole foreground group: the command decides what it means, and this waits for it.
    _ignore(signal.SIGINT, signal.SIGQUIT)
    try:
        process = watched.start()
        _pass_on(process, signal.SIGTERM, signal.SIGHUP)
        code = process.wait()
    except OSError as error:
        return _report_missing(name, error, notify)
    finally:
        attempts, others = watched.supervisor.stop()
    for line in report(attempts, others):
        notify(line)
    return _leave(code, is_interruptible, notify)


def report(attempts: Counter[Attempt], others: int) -> list[str]:
    """Say what was refused, the most frequent first."""
    lines = [attempt.line(times) for attempt, times in attempts.most_common(MOST_LINES)]
    if len(attempts) > MOST_LINES or others:
        rest = attempts.total() - sum(times for _, times in attempts.most_common(MOST_LINES)) + others
        lines.append(f"refused: {rest} more")
    if not lines:
        lines.append("offline: enforced by seccomp; nothing tried to leave this machine")
    return lines


def _leave(code: int, is_interruptible: bool, notify: Notify) -> int:
    if code >= 0:
        return code
    if -code == signal.SIGINT and is_interruptible:
        # Died of it, too: a shell that runs this in a loop has to know that the loop is to end.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    if -code == signal.SIGSYS:
        notify("offline: the command was ended, as it made a call of another ABI (32-bit, x32), which is not watched")
    return 128 - code


def _report_missing(name: str, error: OSError, notify: Notify) -> int:
    missing = isinstance(error, FileNotFoundError | NotADirectoryError)
    notify(f"error: {name}: {'no such command' if missing else error.strerror or error}")
    return NOT_FOUND if missing else NOT_EXECUTABLE


def _restore_signals() -> None:
    """Undo what Python ignores for itself, as subprocess does for its children."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        if number := getattr(signal, name, None):
            signal.signal(number, signal.SIG_DFL)


def _ignore(*signals: signal.Signals) -> None:
    """Do nothing on a signal. A handler is reset in the command, where SIG_IGN would be inherited."""
    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _do_nothing)


def _do_nothing(number: int, frame: FrameType | None) -> None:
    pass


def _pass_on(process: subprocess.Popen[bytes], *signals: signal.Signals) -> None:
    for number in signals:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: process.send_signal(received))
