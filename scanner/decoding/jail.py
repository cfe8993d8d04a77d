"""Run one function on a stranger's bytes in a killable child that has no network, no files and hard limits.

In: a task's name, an open descriptor, options. Out: the task's answer and its payload, in shared memory, uncopied.
One reason: C code that parses hostile media cannot be stopped by a Python timeout (measured: a 1 s limit outlived by a
7 s call), and must own nothing when it is broken into.

    Jail (threads) -- Unix socket, 4 descriptors --> jailer (server) -- fork --> one locked-down child per job

One server per module of tasks, started when first needed: a fork copies the maps of every library, and those of video
made each picture's job 2.3 core-ms dearer.
The parent keeps the wall clock and holds a pidfd of the child; the kernel keeps memory, CPU and file size.
"""

import contextlib
import logging
import math
import mmap
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import msgspec

from scanner.decoding.fork_server import START_TIMEOUT_S, ForkServer
from scanner.decoding.isolation import Limits
from scanner.decoding.jail_report import JailReport
from scanner.decoding.jailer import EXIT_MEMORY, MESSAGE_BYTES, Answer, Ended, Request
from scanner.errors import DecoderFailed, Internal, MediaError, NoJail, by_code
from scanner.settings import Settings

log = logging.getLogger(__name__)

TASKS: Mapping[str, str] = {
    "jpeg": "scanner.decoding.jpeg:decode",
    "image": "scanner.decoding.picture:decode",
    "video": "scanner.decoding.video:decode",
}
"""Everything that production may run in the jail: name -> module:function."""

_PROBE, _PROBE_TARGET = "probe", "scanner.decoding.jailer:probe"
_ANSWER_BYTES = 4_000_000
_SELF_TEST_MEMORY_BYTES = 1_000_000_000


class Jail:
    """The fork servers and the jobs that run below them.

    Use it as a context manager; `run` may be called from many threads at once. Entering starts the first and tests the
    walls: raises NoJail when they do not hold and `settings.require_jail`. Leaving kills everything.
    `tasks` is the allow-list; only tests pass another one.
    """

    def __init__(self, settings: Settings, *, tasks: Mapping[str, str] = TASKS) -> None:
        self._settings = settings
        self._tasks = {**tasks, _PROBE: _PROBE_TARGET}
        self._home = _module(next(iter(self._tasks.values())))  # whose server the self-test uses
        self._lock = threading.Lock()
        self._servers: dict[str, ForkServer] = {}  # by module
        self._report: JailReport | None = None

    def __enter__(self) -> Self:
        try:
            self._report = self._self_test()
            self._insist(self._report)
        except BaseException:
            self.close()
            raise
        return self

    def _insist(self, report: JailReport) -> None:
        if self._settings.require_jail and not report.ok:
            msg = (
                f"this machine cannot isolate the decoder ({'; '.join(report.words)}); allow user namespaces, "
                "or set LAESCAN_REQUIRE_JAIL=false to run it with limits of memory and time only"
            )
            raise NoJail(msg)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the servers and with them all children; a later `run` would start them again."""
        with self._lock:
            while self._servers:
                self._servers.popitem()[1].stop()

    @property
    def _server(self) -> ForkServer | None:
        """The server that the self-test used."""
        return self._servers.get(self._home)

    def report(self) -> JailReport:
        """What the self-test found; it runs again when the jail was never entered."""
        if self._report is None:
            self._report = self._self_test()
        return self._report

    def run(
        self, task: str, fd: int, options: Mapping[str, Any], *, timeout_s: float, memory_bytes: int
    ) -> tuple[dict[str, Any], memoryview]:
        """Run `task` on the open file `fd`; blocks, at most `timeout_s` plus a moment.

        Out: the task's answer, and its payload: private shared memory that lives as long as the view.
        Raises the ScanError that the task raised; DecoderFailed when the child crashed or hit memory, CPU or wall
        clock; NoJail when no server can be started; Internal when this machine has no room for another process.
        """
        if task not in self._tasks:
            msg = f"{task!r} is not a task of the jail"
            raise Internal(msg)
        limits = Limits(memory_bytes, self._settings.max_decoded_bytes, math.ceil(timeout_s))
        request = msgspec.msgpack.encode(Request(task, dict(options), limits))
        if len(request) > MESSAGE_BYTES:
            msg = f"the options of {task!r} are too large for the jail"
            raise Internal(msg)
        with contextlib.ExitStack() as stack:
            payload = _kept(stack, self._payload_file(task))
            answer = _kept(stack, os.memfd_create("laescan-answer"))
            status, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(status)
            with theirs:  # ours to close: the end of the job is when nobody holds it any more
                self._send(task, request, (fd, payload, answer, theirs.fileno()))
            ended = _wait(status, timeout_s, on_deaf_server=self._give_up)
            if ended is not None:
                log.debug("%s: %.3f s CPU, peak %d bytes", task, ended.cpu_s, ended.peak_bytes)
            _judge(ended, timeout_s)
            return _read(answer), _map(payload)

    def _send(self, task: str, request: bytes, descriptors: tuple[int, ...]) -> None:
        """Hand a job to the server of its module, to a new one if it died."""
        home = self._home_of(task)
        with self._lock:
            for last_try in (False, True):
                server = self._living(home)
                try:
                    socket.send_fds(server.control, [request], descriptors)
                except OSError as error:
                    log.warning("the decoder's fork server is gone (%s); starting another", error)
                    self._servers.pop(home).stop()
                    if last_try:
                        msg = "the decoder's fork server does not stay up; see the log"
                        raise NoJail(msg) from error
                else:
                    return

    def _home_of(self, task: str) -> str:
        return self._home if task == _PROBE else _module(self._tasks[task])

    def _payload_file(self, task: str) -> int:
        """A nameless file in memory; in huge pages where the server has brought a folder of them."""
        with self._lock:  # nobody closes the folder meanwhile
            server = self._servers.get(self._home_of(task))
            if server is not None and server.folder is not None:
                with contextlib.suppress(OSError):
                    return os.open(".", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600, dir_fd=server.folder)
        return os.memfd_create("laescan-payload")

    def _living(self, home: str) -> ForkServer:
        """The server of a module, started where there is none; raises NoJail when it cannot have the tested walls."""
        server = self._servers.get(home)
        if server is not None and not server.is_ours:
            self._servers.pop(home).stop()
            server = None
        if server is None:
            server = ForkServer.start(
                {n: t for n, t in self._tasks.items() if _module(t) in {home, _module(_PROBE_TARGET)}}
            )
            if self._report is not None and self._settings.require_jail and server.walls != self._report.walls:
                server.stop()
                msg = "this machine isolated one decoder, but not the next; see `laescan doctor`"
                raise NoJail(msg)
            self._servers[home] = server
        return server

    def _give_up(self) -> None:
        """The server itself does not answer: the next run gets another one."""
        log.error("the decoder's fork server does not answer; killing it")
        self.close()

    def _self_test(self) -> JailReport:
        """Let a child try to get out: connect, open, allocate, fork."""
        reached = False
        with socket.create_server(("127.0.0.1", 0)) as listener, open(__file__, "rb") as readable:  # noqa: PTH123 - a descriptor
            options = {
                "port": listener.getsockname()[1],
                "path": __file__,
                "memory_bytes": _SELF_TEST_MEMORY_BYTES + 1,
            }
            found, _ = self.run(
                _PROBE, readable.fileno(), options, timeout_s=START_TIMEOUT_S, memory_bytes=_SELF_TEST_MEMORY_BYTES
            )
            listener.settimeout(0)
            with contextlib.suppress(BlockingIOError):
                listener.accept()[0].close()
                reached = True  # the canary's word, not the prisoner's
        assert self._server is not None  # noqa: S101 - run() has just used it
        return JailReport(
            walls=self._server.walls,
            network_blocked=bool(found["network"]) and not reached,
            files_blocked=bool(found["files"]),
            memory_blocked=bool(found["memory"]),
            processes_blocked=bool(found["processes"]),
        )


def _module(target: str) -> str:
    return target.partition(":")[0]


def _kept(stack: contextlib.ExitStack, descriptor: int) -> int:
    """Closed with the stack."""
    stack.callback(os.close, descriptor)
    return descriptor


def _wait(status: socket.socket, timeout_s: float, on_deaf_server: Callable[[], None]) -> Ended | None:
    """Wait for the job's end and kill its child at the deadline; None = out of time."""
    deadline = time.monotonic() + timeout_s
    child: int | None = None
    poll = select.poll()
    poll.register(status, select.POLLIN)
    try:
        while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
            data, descriptors, _, _ = socket.recv_fds(status, MESSAGE_BYTES, 1)
            if not data:
                return Ended(signal=signal.SIGHUP)  # the server is gone
            if not descriptors:
                return msgspec.msgpack.decode(data, type=Ended)
            child = descriptors[0]
        if child is None:
            on_deaf_server()
        return None
    finally:
        if child is not None:
            with contextlib.suppress(ProcessLookupError):  # gone already, as it should be
                signal.pidfd_send_signal(child, signal.SIGKILL)
            os.close(child)


def _judge(ended: Ended | None, timeout_s: float) -> None:
    """Return when the child ended well; else raise what happened, in words."""
    if ended is None:
        msg = f"decoding took longer than {timeout_s:g} s and was stopped; try a smaller or re-encoded copy"
    elif ended.fault:
        raise Internal(ended.fault)
    elif ended.status == EXIT_MEMORY:
        msg = "decoding needs more memory than the limit; try a smaller copy"
    elif ended.signal in {signal.SIGXCPU, signal.SIGKILL} and ended.cpu_s >= timeout_s:
        msg = f"decoding used more than {timeout_s:g} s of CPU and was stopped; try a smaller or re-encoded copy"
    elif ended.signal == signal.SIGHUP:
        msg = "the decoder's server was killed while it worked on this file; try again"
    elif ended.signal:
        name = signal.Signals(ended.signal).name
        msg = f"the decoder crashed on this file ({name}); the file is broken, or made to break decoders"
    else:
        return  # with an answer, or with a trace of what went wrong
    raise DecoderFailed(msg)


def _read(answer: int) -> dict[str, Any]:
    """The task's answer; raises the ScanError that it left instead."""
    try:
        found = msgspec.msgpack.decode(os.pread(answer, _ANSWER_BYTES, 0), type=Answer)
    except (msgspec.MsgspecError, RecursionError) as error:
        msg = "the decoder left no answer that can be read; the file is broken, or made to break decoders"
        raise DecoderFailed(msg) from error
    if found.code:  # of the medium: a decoder that was broken into must not say that we failed, which is tried again
        kind = by_code().get(found.code, DecoderFailed)
        raise (kind if issubclass(kind, MediaError) else DecoderFailed)(found.message)
    if found.value is None:
        log.warning("a task failed in the jail:\n%s", found.trace)
        last = found.trace.strip().rpartition("\n")[2]
        msg = f"the decoder stopped on this file ({last}); the file is broken, or made to break decoders"
        raise DecoderFailed(msg)
    return found.value


def _map(payload: int) -> memoryview:
    """The payload as memory: copy-on-write, so that arrays over it are writable and nothing is copied until written."""
    size_bytes = os.fstat(payload).st_size
    if size_bytes == 0:
        return memoryview(b"")
    return memoryview(mmap.mmap(payload, size_bytes, access=mmap.ACCESS_COPY))
