"""A network namespace with nothing in it but its own loopback: no way out, and no list of what was tried.

Linux only, by ctypes; where user namespaces are allowed no privilege is needed. Importing it does no harm elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import sys
import time

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_SET_INTERFACE_FLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40
_SECONDS_FOR_THREADS = 1.0


def require_support() -> None:
    """Find out whether `enter` would work, in a child process, so that a failure half-way leaves nothing behind.

    Raises:
        OSError: it would not.
    """
    if sys.platform != "linux":
        raise OSError(errno.ENOSYS, f"there are no network namespaces on {sys.platform}")
    _wait_for_threads()
    child = os.fork()
    if child == 0:
        code = errno.EINVAL
        try:
            enter()
            code = 0
        except OSError as error:
            code = error.errno or errno.EINVAL
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, f"no network namespace: {os.strerror(abs(code))}")


def enter() -> None:
    """Move this process, which must have one thread, into a network of its own; user and files stay what they are.

    Raises:
        OSError: the kernel or an administrator forbids it; the process may have been moved half-way.
    """
    user, group = os.getuid(), os.getgid()
    try:
        _unshare(_NEW_NET)
    except PermissionError:
        _unshare(_NEW_USER | _NEW_NET)
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{user} {user} 1")
        _write("/proc/self/gid_map", f"{group} {group} 1")
    _bring_loopback_up()


def _unshare(flags: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _bring_loopback_up() -> None:
    import fcntl  # not there on Windows

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_INTERFACE_FLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))


def _wait_for_threads() -> None:
    """Wait until threads that have been joined are gone from the kernel, too, which takes some microseconds."""
    deadline = time.monotonic() + _SECONDS_FOR_THREADS
    while len(os.listdir("/proc/self/task")) > 1 and time.monotonic() < deadline:
        time.sleep(0.001)
