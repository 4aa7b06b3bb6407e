"""Answering what a filtered command wants to connect to: yes to this machine, no to the rest, and a list of the noes.

Allowed calls are let go on in the process that made them (SECCOMP_USER_NOTIF_FLAG_CONTINUE), so the kernel reads the
address a second time, and a thread that rewrites it in between goes where it likes. Making the call on the process's
behalf instead would close that for TCP, and nowhere else: for a unix socket it would show the peer the wrong process
and look paths up in the wrong folder, so those would have to go on in the process all the same, and a program that
races for one could as well ask any service on this machine to speak for it. So this finds what a program does; it is
no jail for one that wants out. Where that matters, a network namespace, which has no way out, is the tool.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hubcache.offline.peers import INET, INET6, LONGEST, PROBE, Peer, family_name, parse_peer
from hubcache.offline.seccomp import Question, answer, borrow_socket, is_waiting, receive

MOST_ATTEMPTS = 1000
"""Different attempts that are kept apart; a scan of a whole network is counted and not listed."""

PROBED = "{}:{}".format(*PROBE)
_SCTP = 132
_MOST_MESSAGES = 1024
_MESSAGE_SIZE = 64
_KINDS = {socket.SOCK_STREAM: "tcp", socket.SOCK_DGRAM: "udp", socket.SOCK_RAW: "raw", socket.SOCK_SEQPACKET: "sctp"}

ReadMemory = Callable[[int, int], bytes]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What was refused: where to, how, and by which process."""

    peer: str
    protocol: str
    process: str

    def line(self, times: int) -> str:
        """Say it in one line: `refused: 192.0.2.1:443 (tcp), 3 times, by python[1234]`."""
        protocol = f" ({self.protocol})" if self.protocol else ""
        return f"refused: {self.peer}{protocol}, {'once' if times == 1 else f'{times} times'}, by {self.process}"


class Supervisor:
    """Answers a listener's questions, in a thread of its own, until it is stopped or nobody can ask any more."""

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._attempts: Counter[Attempt] = Counter()
        self._others = 0
        self._stopped, self._stop = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="offline-supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> tuple[Counter[Attempt], int]:
        """Stop answering; return how often each attempt was refused, and how many more there were.

        What still runs under the filter finds that its calls are not there any more (ENOSYS).
        """
        os.close(self._stop)
        self._thread.join(timeout=5)
        return self._attempts, self._others

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._stopped, select.POLLHUP)
        try:
            while True:
                ready = dict(poll.poll())
                if ready.get(self._listener, 0) & select.POLLIN:
                    question = receive(self._listener)
                    if question is not None:
                        self._answer(question)
                elif ready:
                    return
        finally:
            # Whatever ended this: nobody must wait for an answer that never comes.
            os.close(self._listener)
            os.close(self._stopped)

    def _answer(self, question: Question) -> None:
        try:
            error, peer = judge(question, _memory_of(question.thread))
        except PermissionError:
            error, peer = errno.ECONNREFUSED, "an address that cannot be read"
        except OSError:
            error, peer = errno.EFAULT, None
        if not is_waiting(self._listener, question):
            return
        if peer is not None and peer != PROBED:
            self._note(question, peer)
        answer(self._listener, question, error)

    def _note(self, question: Question, peer: str) -> None:
        attempt = _describe(question, peer)
        if attempt in self._attempts or len(self._attempts) < MOST_ATTEMPTS:
            self._attempts[attempt] += 1
        else:
            self._others += 1


def judge(question: Question, read: ReadMemory) -> tuple[int, str | None]:
    """Decide on a call: an errno, 0 to let it go on, and what was refused, None where that is no attempt to get out.

    Raises:
        OSError: the process's memory is not there, or cannot be read.
    """
    if question.call == "socket":
        return _judge_socket(question)
    for address in _addresses(question, read):
        peer: Peer | None = parse_peer(address, connecting=question.call == "connect")
        if peer is None:
            return errno.EINVAL, None
        if not peer.is_here:
            return errno.ECONNREFUSED, peer.text
    return 0, None


def _judge_socket(question: Question) -> tuple[int, str | None]:
    """Allow internet sockets that say where they go by calls that are watched; SCTP's go by setsockopt, too.

    A packet socket is bound to a card and then sends without an address.
    """
    family, kind, protocol = (argument & 0xFFFFFFFF for argument in question.arguments[:3])
    if family == socket.AF_ALG:
        return 0, None
    if family not in {INET, INET6}:
        return errno.EAFNOSUPPORT, f"a socket of {family_name(family)}"
    if protocol == _SCTP or kind & 0xF == socket.SOCK_SEQPACKET:
        return errno.EPROTONOSUPPORT, "a socket of SCTP"
    return 0, None


def _addresses(question: Question, read: ReadMemory) -> Iterator[bytes]:
    """Read the addresses that a call names, none where it names none."""
    arguments = question.arguments
    if question.call == "connect":
        yield read(arguments[1], _length(arguments[2]))
    elif question.call == "sendto":
        if size := _length(arguments[5]):
            yield read(arguments[4], size)
    elif question.call == "sendmsg":
        yield from _message_address(arguments[1], read)
    elif question.call == "sendmmsg":
        for index in range(min(arguments[2] & 0xFFFFFFFF, _MOST_MESSAGES)):
            yield from _message_address(arguments[1] + index * _MESSAGE_SIZE, read)
    else:
        raise PermissionError(errno.EPERM, f"not a call that is watched: {question.call}")


def _message_address(message: int, read: ReadMemory) -> Iterator[bytes]:
    name, length = struct.unpack("=QI", read(message, 12))
    if name and _length(length):
        yield read(name, _length(length))


def _length(argument: int) -> int:
    """Read a length as the kernel does, an int; one that is negative or too long is refused there."""
    return min(argument & 0xFFFFFFFF, LONGEST)


def _memory_of(thread: int) -> ReadMemory:
    def read(address: int, size: int) -> bytes:
        memory = os.open(f"/proc/{thread}/mem", os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.pread(memory, size, address)
        except OverflowError as error:
            raise OSError(errno.EFAULT, "no such address") from error
        finally:
            os.close(memory)
        if len(found) < size:
            raise OSError(errno.EFAULT, "the address ends in nothing")
        return found

    return read


def _describe(question: Question, peer: str) -> Attempt:
    process = _process_of(question.thread)
    try:
        with open(f"/proc/{process}/comm", encoding="utf-8", errors="replace") as file:
            name = "".join(c if c.isprintable() else "?" for c in file.read().removesuffix("\n"))
    except OSError:
        name = "?"
    protocol = "" if question.call == "socket" else _protocol(process, question.arguments[0] & 0xFFFFFFFF)
    return Attempt(peer, protocol, f"{name}[{process}]")


def _process_of(thread: int) -> int:
    try:
        with open(f"/proc/{thread}/status", encoding="utf-8", errors="replace") as file:
            return next((int(line.split()[1]) for line in file if line.startswith("Tgid:")), thread)
    except OSError:
        return thread


def _protocol(process: int, descriptor: int) -> str:
    try:
        borrowed = borrow_socket(process, descriptor)
    except OSError:
        return ""
    try:
        with socket.socket(fileno=borrowed) as found:
            return _KINDS.get(socket.SocketKind(found.type), "")
    except (OSError, ValueError):
        return ""
