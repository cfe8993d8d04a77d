"""The fork server: one process that has everything imported, and forks a locked-down child per job.

In: requests on a Unix socket (with the job's input, payload and answer as descriptors). Out: an `Ended` per job.
One reason: a decoder must be killable and must own nothing, and where a fork costs milliseconds a fresh interpreter
with its imports costs most of a second.

Run by `scanner.decoding.jail`, never by hand: `python -m scanner.decoding.jailer DESCRIPTOR NAME=module:function ...`.
It ends when its socket closes, and its children end with it.
"""

import errno
import fcntl
import gc
import importlib
import io
import mmap
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn, cast

import msgspec

from scanner.decoding import isolation
from scanner.errors import ScanError
from scanner.walls import kernel

MESSAGE_BYTES = 128 * 1024
"""Largest request; a Unix socket's default buffer holds it whole."""
EXIT_MEMORY = 3
"""Exit status of a child that could not allocate."""

Task = Callable[[BinaryIO, BinaryIO, dict[str, Any]], dict[str, Any]]
"""What may be run: (input, payload to write, options) -> answer. It sees no files, no network and no environment."""


class Request(msgspec.Struct, frozen=True):
    """One job; its descriptors travel beside it: input, payload, answer, status."""

    task: str
    options: dict[str, Any]
    limits: isolation.Limits


class Ready(msgspec.Struct, frozen=True):
    """The server's first message; beside it a folder for payloads, where there is a better one than the parent has."""

    walls: isolation.Walls


class Ended(msgspec.Struct, frozen=True):
    """A child is gone: how, and what it used. `fault` is set when it could not be started."""

    signal: int = 0
    status: int = 0
    cpu_s: float = 0.0
    peak_bytes: int = 0
    fault: str = ""


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a child leaves: a task's dict, or the code and words of a ScanError, or the trace of a bug."""

    value: dict[str, Any] | None = None
    code: str = ""
    message: str = ""
    trace: str = ""


class Child(msgspec.Struct, frozen=True):
    """One running job; the socket tells the parent how it ended."""

    pid: int
    status: socket.socket


def probe(source: BinaryIO, payload: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    """Try what a broken-into decoder would try; the built-in self-test behind `laescan doctor`.

    Options: `port` of a listener on loopback, `path` of a readable file, `memory_bytes` beyond the limit.
    """
    del source, payload
    return {
        "network": _held(lambda: socket.create_connection(("127.0.0.1", options["port"]), timeout=1).close()),
        "files": _held(lambda: os.close(os.open(options["path"], os.O_RDONLY))),
        "memory": _held(lambda: mmap.mmap(-1, options["memory_bytes"]).close()),
        "processes": _held(_fork_once),
    }


def prepare() -> None:
    """Load what `probe` would load late: in the jail there is nothing to load from."""
    "localhost".encode("idna")


def _held(attempt: Callable[[], None]) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return True
    return False


def _fork_once() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def load(target: str) -> Task:
    """The function behind `module:function`; its module's `prepare()`, if any, loads what would be loaded late."""
    module_name, _, name = target.partition(":")
    module = importlib.import_module(module_name)
    if prepare := getattr(module, "prepare", None):
        prepare()
    task: Task = getattr(module, name)
    return task


class Server:
    """Forks a child per request and tells how each ended."""

    def __init__(self, control: socket.socket, tasks: dict[str, Task]) -> None:
        self._control = control
        self._tasks = tasks
        self._children: dict[int, Child] = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        walls, self._own_pid_space = isolation.enter_walls()
        self._handle = os.pidfd_open(os.getpid())
        folder = isolation.huge_folder()
        socket.send_fds(control, [msgspec.msgpack.encode(Ready(walls))], [] if folder is None else [folder])
        if folder is not None:
            os.close(folder)

    def serve(self) -> None:
        """Until the other end of the control socket is closed."""
        while True:
            for descriptor, _ in self._poll.poll():
                if descriptor != self._control.fileno():
                    self._reap(descriptor)
                elif not self._accept():
                    return

    def _accept(self) -> bool:
        data, descriptors, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 4)
        if not data:
            return False
        *files, status_descriptor = descriptors
        status = socket.socket(fileno=status_descriptor)
        try:
            self._start(msgspec.msgpack.decode(data, type=Request), files, status)
        except OSError as error:
            _tell(status, Ended(fault=f"no child could be started: {error}"))
            status.close()
        finally:
            for descriptor in files:
                os.close(descriptor)
        return True

    def _start(self, request: Request, files: list[int], status: socket.socket) -> None:
        isolation.next_child_alone(self._own_pid_space)
        try:
            pid = os.fork()
            if pid == 0:
                _live(self._tasks[request.task], request, [*files, self._handle])
        finally:
            isolation.next_child_beside(self._own_pid_space)
        handle = os.pidfd_open(pid)
        self._children[handle] = Child(pid, status)
        self._poll.register(handle, select.POLLIN)
        try:
            socket.send_fds(status, [b"started"], [handle])
        except OSError:  # whoever asked is gone
            signal.pidfd_send_signal(handle, signal.SIGKILL)

    def _reap(self, handle: int) -> None:
        child = self._children.pop(handle)
        self._poll.unregister(handle)
        _, status, usage = os.wait4(child.pid, 0)
        os.close(handle)
        ended = Ended(
            signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
            status=os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
            cpu_s=usage.ru_utime + usage.ru_stime,
            peak_bytes=usage.ru_maxrss * 1024,
        )
        _tell(child.status, ended)
        child.status.close()


def _tell(status: socket.socket, ended: Ended) -> None:
    try:
        status.send(msgspec.msgpack.encode(ended))
    except OSError as error:
        if error.errno not in {errno.EPIPE, errno.ECONNRESET}:  # whoever asked is gone
            raise


def _live(task: Task, request: Request, files: list[int]) -> NoReturn:
    """The whole life of a child: lock itself down, run the task, leave the answer, exit."""
    gc.disable()  # what a job leaves dies with it
    status = 1
    try:
        source, payload, answer, server = _keep_only(files)
        _leave(lambda: _locked_down(task, source, payload, request, server), answer)
        status = 0
    except MemoryError:
        status = EXIT_MEMORY
    finally:
        os._exit(status)  # neither atexit handlers nor a flush of the server's buffers


def _locked_down(task: Task, source: BinaryIO, payload: BinaryIO, request: Request, server: int) -> dict[str, Any]:
    isolation.lock_down(request.limits)
    if kernel.is_dead(server):  # it died between the fork and our asking to be killed when it dies
        os._exit(1)
    os.close(server)
    return task(source, payload, request.options)


def _leave(work: Callable[[], dict[str, Any]], answer: BinaryIO) -> None:
    """Work, and write the answer: a ScanError crosses by its code, a bug by its trace."""
    found = Answer()
    try:
        found = Answer(value=work())
    except ScanError as error:
        found = Answer(code=error.code, message=str(error))
    finally:
        if isinstance(bug := sys.exception(), Exception) and not isinstance(bug, MemoryError):
            found = Answer(trace="".join(traceback.format_exception(bug)))
        answer.write(msgspec.msgpack.encode(found))


def _keep_only(files: list[int]) -> tuple[BinaryIO, BinaryIO, BinaryIO, int]:
    """Keep the job's three descriptors as 3, 4 and 5, the server's pidfd as 6, and the null device at 0, 1 and 2."""
    os.dup2(0, 2)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 7) for descriptor in files]
    for place, descriptor in enumerate(high):
        os.dup2(descriptor, 3 + place)
    os.closerange(7, os.sysconf("SC_OPEN_MAX"))
    source, payload, answer = (io.FileIO(3 + place, mode) for place, mode in enumerate(("rb", "wb", "wb")))
    return cast("BinaryIO", source), cast("BinaryIO", payload), cast("BinaryIO", answer), 6


def main(arguments: list[str]) -> None:
    """Import everything, then close the doors, then serve."""
    control = socket.socket(fileno=int(arguments[0]))
    named = (argument.split("=", 1) for argument in arguments[1:])
    tasks = {name: load(target) for name, target in named}
    os.environ.clear()  # here, once, and for all children
    gc.collect()
    gc.freeze()  # children do not copy pages only to count references
    Server(control, tasks).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
