"""A system-call filter that asks before a socket is given an address; what the answer is, supervisor.py decides.

Linux only, by ctypes and without any privilege: seccomp(2), seccomp_unotify(2). Importing it does no harm elsewhere.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """What a processor calls the system calls that matter here."""

    audit_arch: int
    seccomp: int
    watched: dict[int, str]
    socket: int
    sendto: int
    x32_bit: int | None = None


MACHINES = {
    "x86_64": Machine(0xC000003E, 317, {42: "connect", 46: "sendmsg", 307: "sendmmsg"}, 41, 44, 0x40000000),
    "aarch64": Machine(0xC00000B7, 277, {203: "connect", 211: "sendmsg", 269: "sendmmsg"}, 198, 206),
}

KILL_PROCESS = 0x80000000
ERRNO = 0x00050000
USER_NOTIF = 0x7FC00000
ALLOW = 0x7FFF0000

_IO_URING = (425, 426, 427)
_PIDFD_GETFD = 438
_UNIX, _NETLINK = 1, 16
_LOAD, _RETURN, _EQUAL, _AT_LEAST = 0x20, 0x06, 0x15, 0x35
_SYSCALL, _ARCH, _ARGUMENTS = 0, 4, 16

_PR_SET_NO_NEW_PRIVS = 38
_SET_MODE_FILTER, _GET_ACTION_AVAIL, _GET_NOTIF_SIZES = 1, 2, 3
_NEW_LISTENER, _WAIT_KILLABLE = 1 << 3, 1 << 5
_RECEIVE, _SEND, _IS_VALID = 0xC0502100, 0xC0182101, 0x40082102
_CONTINUE = 1
# id, pid, flags, then struct seccomp_data: call, arch, instruction pointer, six arguments.
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")

Instruction = tuple[int, int, int, int]


def filter_program(machine: Machine) -> list[Instruction]:
    """Write the filter: every call that may name a peer is asked about, ways around it are closed.

    A connect, a sendmsg, a sendmmsg, a sendto with an address, and a socket of any family but unix and netlink
    are asked about. io_uring, which would do the same unseen, is refused (EPERM, as where an administrator has
    switched it off). A call by another ABI (32-bit, x32) ends the process: its numbers mean something else.
    """
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_EQUAL, 1, 0, machine.audit_arch),
        (_RETURN, 0, 0, KILL_PROCESS),
        (_LOAD, 0, 0, _SYSCALL),
    ]
    if machine.x32_bit is not None:
        program += [(_AT_LEAST, 0, 1, machine.x32_bit), (_RETURN, 0, 0, KILL_PROCESS)]
    for call in machine.watched:
        program += _when(call, [(_RETURN, 0, 0, USER_NOTIF)])
    for call in _IO_URING:
        program += _when(call, [(_RETURN, 0, 0, ERRNO | errno.EPERM)])
    address = _ARGUMENTS + 8 * 4
    program += _when(machine.sendto, [
        (_LOAD, 0, 0, address),
        (_EQUAL, 0, 2, 0),
        (_LOAD, 0, 0, address + 4),
        (_EQUAL, 1, 0, 0),
        (_RETURN, 0, 0, USER_NOTIF),
        (_RETURN, 0, 0, ALLOW),
    ])  # fmt: skip
    program += _when(machine.socket, [
        (_LOAD, 0, 0, _ARGUMENTS),
        (_EQUAL, 2, 0, _UNIX),
        (_EQUAL, 1, 0, _NETLINK),
        (_RETURN, 0, 0, USER_NOTIF),
        (_RETURN, 0, 0, ALLOW),
    ])  # fmt: skip
    return [*program, (_RETURN, 0, 0, ALLOW)]


def _when(call: int, then: Sequence[Instruction]) -> list[Instruction]:
    """Jump over `then`, which has to return, unless it is this call."""
    return [(_EQUAL, 0, len(then), call), *then]


class _Filter(ctypes.Structure):
    _fields_ = (("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_uint16), ("filter", ctypes.POINTER(_Filter)))


def this_machine() -> Machine:
    """Return what this processor calls things.

    Raises:
        OSError: no Linux, no such processor known here, or a 32-bit interpreter.
    """
    machine = MACHINES.get(platform.machine())
    if sys.platform != "linux" or machine is None or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise OSError(errno.ENOSYS, f"seccomp is not used on {sys.platform} on {platform.machine()}")
    return machine


def require_support() -> None:
    """Find out whether this kernel can ask, without changing anything.

    Raises:
        OSError: it cannot, or its answers could not be given: the memory of other processes is closed to us.
    """
    machine = this_machine()
    _call(machine.seccomp, _GET_ACTION_AVAIL, 0, ctypes.byref(ctypes.c_uint32(USER_NOTIF)))
    sizes = (ctypes.c_uint16 * 3)()
    _call(machine.seccomp, _GET_NOTIF_SIZES, 0, ctypes.byref(sizes))
    if tuple(sizes[:2]) != (_NOTIFICATION.size, _RESPONSE.size):
        raise OSError(errno.ENOSYS, f"this kernel's seccomp notifications have a new form: {list(sizes)}")
    try:
        with open("/proc/sys/kernel/yama/ptrace_scope", encoding="ascii") as file:
            scope = int(file.read())
    except FileNotFoundError:
        return
    if scope >= 3 or (scope == 2 and os.geteuid() != 0):
        raise OSError(errno.EPERM, f"kernel.yama.ptrace_scope is {scope}: what a command connects to cannot be read")


def listen() -> int:
    """Put this thread, and whatever it starts from now on, under the filter; return the descriptor that is asked.

    The other threads of this process stay free, so that they can answer.

    Raises:
        OSError: the kernel has no notifications, forbids them, or somebody listens to this process already (EBUSY).
    """
    machine = this_machine()
    program = filter_program(machine)
    filters = (_Filter * len(program))(*(_Filter(*instruction) for instruction in program))
    argument = _Program(len(program), filters)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    try:
        # From 5.19 on: a signal does not make the asking start over.
        return _call(machine.seccomp, _SET_MODE_FILTER, _NEW_LISTENER | _WAIT_KILLABLE, ctypes.byref(argument))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return _call(machine.seccomp, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(argument))


@dataclass(frozen=True, slots=True)
class Question:
    """One call that waits for an answer: who makes it, and its arguments as the registers hold them."""

    id: int
    thread: int
    call: str
    arguments: tuple[int, ...]


def receive(listener: int) -> Question | None:
    """Take the next question; None where the one who asked is gone."""
    buffer = bytearray(_NOTIFICATION.size)
    try:
        _ioctl(listener, _RECEIVE, buffer)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EINTR}:
            return None
        raise
    identity, thread, _, number, _, _, *arguments = _NOTIFICATION.unpack(buffer)
    machine = this_machine()
    names = {**machine.watched, machine.socket: "socket", machine.sendto: "sendto"}
    return Question(identity, thread, names.get(number, f"system call {number}"), tuple(arguments))


def is_waiting(listener: int, question: Question) -> bool:
    """Tell whether the one who asked still waits; if so, its process id has not been given to another."""
    try:
        _ioctl(listener, _IS_VALID, struct.pack("=Q", question.id))
    except OSError:
        return False
    return True


def answer(listener: int, question: Question, error: int = 0) -> None:
    """Let the call go on, or make it fail with an errno; no matter if nobody waits any more."""
    response = _RESPONSE.pack(question.id, 0, -error, 0 if error else _CONTINUE)
    try:
        _ioctl(listener, _SEND, response)
    except OSError as failure:
        if failure.errno != errno.ENOENT:
            raise


def borrow_socket(process: int, descriptor: int) -> int:
    """Return a duplicate of another process's descriptor.

    Raises:
        OSError: the process is gone or closed to us, or the kernel is older than 5.6.
    """
    pidfd = os.pidfd_open(process)
    try:
        return _call(_PIDFD_GETFD, pidfd, descriptor, 0)
    finally:
        os.close(pidfd)


def _ioctl(descriptor: int, request: int, argument: bytes | bytearray) -> None:
    import fcntl  # not there on Windows

    fcntl.ioctl(descriptor, request, argument)


def _call(*arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result: int = libc.syscall(*(ctypes.c_long(each) if isinstance(each, int) else each for each in arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0))) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
