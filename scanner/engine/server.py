"""The long-lived process that owns a device: frames of any number of jobs in, their faces out, in shared batches.

    sockets (event loop) -> Queue -> batch -> model (its own thread) -> answers

One reason: a model is loaded once and not per job, and the crops of all jobs on a machine share its batches.
It is made to be killed: a client whose engine is gone asks the next one again, so nothing is kept that must survive.
What only one batch can be blamed for ends that batch; what says that the device is lost ends the process.
"""

import asyncio
import contextlib
import fcntl
import logging
import os
import resource
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import msgspec

from scanner.detection.local_model import LocalModel
from scanner.detection.model import SeenTile
from scanner.detection.seer import Seen, Seer
from scanner.engine import wire
from scanner.engine.waiting import Batch, Queue, Waiting
from scanner.errors import Internal, ModelChanged, NoEngine, ScanError
from scanner.settings import Settings

log = logging.getLogger(__name__)

SILENCE_S = 10.0
"""How long a connection may be open without a request."""
SPARE_CONNECTIONS = 128
"""How many may be open beyond the queue: of requests in work, of those that are about to ask, and of the curious."""
_BACKLOG = 128


@dataclass
class _Sums:
    batches: int = 0
    frames: int = 0
    faces: int = 0
    tiles: int = 0
    waited_s: float = 0.0
    worked_s: float = 0.0


class Engine:
    """Answers on a Unix socket until it is told to stop."""

    def __init__(self, model: LocalModel, settings: Settings) -> None:
        self._model, self._settings = model, settings
        self._seer = Seer(model)
        self._queue = Queue(settings.engine_max_queued)
        self._connections: dict[socket.socket, Waiting | None] = {}
        self._clients: dict[Waiting, socket.socket] = {}
        self._sums, self._born_s = _Sums(), time.monotonic()
        self._batch_since_s: float | None = None
        self._stirred = asyncio.Event()
        self._stopping = False

    async def serve(self, listener: socket.socket) -> None:
        """Answer until SIGTERM or SIGINT; then take nothing new and answer what waits, for `engine_drain_s` at most.

        Raises torch.AcceleratorError when the device is lost.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, listener)
        loop.add_reader(listener, self._accept, listener)
        # one thread for all batches: oneDNN compiles its kernels anew for every thread
        with ThreadPoolExecutor(1, "laescan-model") as thread:
            try:
                await loop.run_in_executor(thread, self._model.warm_up)
                await self._work_until_stopped(thread)
            finally:
                loop.remove_reader(listener.fileno())
                for connection in list(self._connections):
                    self._close(connection)

    async def _work_until_stopped(self, thread: ThreadPoolExecutor) -> None:
        while not (self._stopping and not self._queue):
            self._stirred.clear()
            batch = self._queue.take(self._seer.room)
            if batch is None:
                await self._stirred.wait()
            else:
                await self._work(batch, thread)

    def _stop(self, listener: socket.socket) -> None:
        """Take nothing new; a second signal, or time, ends also what waits."""
        if self._stopping:
            self._give_up()
            return
        self._stopping = True
        asyncio.get_running_loop().remove_reader(listener)
        listener.shutdown(socket.SHUT_RDWR)  # who is in its backlog is cut off when we end, and asks the next engine
        asyncio.get_running_loop().call_later(self._settings.engine_drain_s, self._give_up)
        log.info("stopping; %d requests are still answered", len(self._clients))
        for connection, waiting in list(self._connections.items()):
            if waiting is None:
                self._close(connection)
        self._stirred.set()

    def _give_up(self) -> None:
        for waiting in list(self._clients):
            self._forget(waiting)
        self._stirred.set()

    # ------------------------------------------------------------ requests

    def _accept(self, listener: socket.socket) -> None:
        """Take a connection; one that says nothing is closed after a while."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        except OSError as error:  # out of descriptors, which whoever is answered next gives back
            log.error("cannot take a connection: %s", error)  # noqa: TRY400 - the trace says nothing
            loop.remove_reader(listener)
            loop.call_later(0.1, self._listen_again, listener)
            return
        if len(self._connections) >= self._settings.engine_max_queued + SPARE_CONNECTIONS:
            connection.close()  # it asks again, as when the queue is full
            return
        connection.settimeout(0)
        self._connections[connection] = None
        loop.add_reader(connection, self._hear, connection)
        loop.call_later(SILENCE_S, self._hush, connection)

    def _listen_again(self, listener: socket.socket) -> None:
        if not self._stopping:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    def _hush(self, connection: socket.socket) -> None:
        """Close a connection that never asked anything."""
        if connection in self._connections and self._connections[connection] is None:
            self._close(connection)

    def _hear(self, connection: socket.socket) -> None:
        """A request, or the end of a client."""
        descriptor = None
        try:
            data, descriptor = wire.receive(connection)
            waiting = self._connections[connection]
            if not data or waiting is not None:  # gone, or it talks out of turn
                self._close(connection)
                return
            request: wire.Request = msgspec.msgpack.decode(data, type=wire.Request)
            if isinstance(request, wire.Ask):
                self._answer(connection, self._status())
            else:
                taken, descriptor = descriptor, None
                self._admit(connection, request, taken)
        except (wire.WireError, msgspec.MsgspecError, RecursionError) as error:
            words = str(error)  # a log that kept the error would keep its trace, and so what was sent
            log.warning("refused a request: %s", words)
            self._answer(connection, wire.Refused(Internal.code, f"the engine cannot read this request: {words}"))
        except BlockingIOError:
            pass
        except OSError:
            self._close(connection)
        finally:
            if descriptor is not None:
                os.close(descriptor)

    def _admit(self, connection: socket.socket, look: wire.Wish, descriptor: int | None) -> None:
        """Queue a request; raises WireError."""
        most_bytes = max(self._settings.max_decoded_bytes, 3 * self._settings.max_image_pixels)
        frames = wire.unpacked(look.frames, wire.mapped(descriptor, most_bytes))
        if look.model_id != self._model.info.model_id:
            words = f"the engine has model {self._model.info.model_id} now, not {look.model_id}; scan it again"
            self._answer(connection, wire.Refused(ModelChanged.code, words))
            return
        if isinstance(look, wire.Inspect) and self._model.region_calibration is None:
            msg = "this engine does not look at whole pictures"
            raise wire.WireError(msg)
        waiting = Waiting(look, frames)
        if not self._queue.add(waiting):
            self._answer(connection, wire.Busy())
            return
        self._connections[connection] = waiting
        self._clients[waiting] = connection
        self._stirred.set()

    def _answer(self, connection: socket.socket, answer: wire.Answer, descriptor: int | None = None) -> None:
        """Send the last packet of a connection; who does not hear it is gone."""
        with contextlib.suppress(OSError):
            wire.send(connection, answer, descriptor)
        self._close(connection)

    def _close(self, connection: socket.socket) -> None:
        """End a connection and forget what was asked on it."""
        asyncio.get_running_loop().remove_reader(connection)
        connection.close()
        waiting = self._connections.pop(connection, None)
        if waiting is not None:
            self._clients.pop(waiting, None)
            self._queue.drop(waiting)

    def _forget(self, waiting: Waiting) -> None:
        if waiting in self._clients:
            self._close(self._clients[waiting])

    # ------------------------------------------------------------ batches

    async def _work(self, batch: Batch, thread: ThreadPoolExecutor) -> None:
        """Let one batch be seen and answer whose last frames it held."""
        begun_s = self._batch_since_s = time.monotonic()
        for waiting in batch.requests:
            self._tell_started(waiting, begun_s)
        work = asyncio.get_running_loop().run_in_executor(thread, self._seer.see, batch)
        hung = asyncio.get_running_loop().call_later(self._settings.engine_timeout_s, _die_hung)
        try:
            seen = await work
        finally:
            hung.cancel()
            self._batch_since_s = None
        self._sums.batches += 1
        if isinstance(batch.look, wire.Inspect):
            self._sums.tiles += len(seen)
        else:
            self._sums.frames += len(seen)
        self._sums.worked_s += time.monotonic() - begun_s
        for (waiting, number), one in zip(batch.parts, seen, strict=True):
            self._collect(waiting, number, one)

    def _tell_started(self, waiting: Waiting, now_s: float) -> None:
        if not waiting.is_started:
            waiting.is_started = True
            self._sums.waited_s += max(0.0, now_s - waiting.look.asked_s)
            with contextlib.suppress(OSError):
                wire.send(self._clients[waiting], wire.Started())

    def _collect(self, waiting: Waiting, number: int, seen: Seen) -> None:
        connection = self._clients.get(waiting)
        if connection is None:  # gone in the meantime, or refused for another frame
            return
        if isinstance(seen, ScanError):
            self._answer(connection, wire.Refused(seen.code, str(seen)))
            return
        waiting.seen[number] = seen
        self._sums.faces += 0 if isinstance(seen, SeenTile) else len(seen)
        if waiting.is_seen:
            try:
                memory = wire.packed_seen(waiting.in_order)
            except OSError as error:  # out of descriptors or memory, which whoever is answered next gives back
                log.error("cannot answer now: %s", error)  # noqa: TRY400 - the trace says nothing
                self._answer(connection, wire.Busy())
                return
            self._answer(connection, wire.Done(), memory)
            os.close(memory)

    def _status(self) -> wire.Status:
        now_s, since_s = time.monotonic(), self._batch_since_s
        return wire.Status(
            info=self._model.info,
            calibration=self._model.calibration,
            region_calibration=self._model.region_calibration,
            pid=os.getpid(),
            up_s=now_s - self._born_s,
            queued=self._queue.count(urgent=True),
            queued_bulk=self._queue.count(urgent=False),
            batch_s=None if since_s is None else now_s - since_s,
            halvings=self._seer.halvings,
            **vars(self._sums),
        )


def run(settings: Settings, path: Path) -> None:
    """Be the engine at `path` until SIGTERM or SIGINT; raises NoEngine when there is one already, BadWeights."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # a waiting request holds 2 descriptors
    # listening before the model is loaded: who comes early waits, and is not refused
    with listening(path) as listener, LocalModel.load(settings) as model:
        log.info("model %s on %s, %s, at %s", *msgspec.structs.astuple(model.info), path)
        model.build_engines()
        asyncio.run(Engine(model, settings).serve(listener))
    log.info("stopped")


def _die_hung() -> None:
    """A batch that runs longer than any client waits will never end, and its thread cannot be stopped."""
    log.critical("a batch does not end; the engine ends instead, for the supervisor to start another")
    os._exit(os.EX_SOFTWARE)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """A listener at `path` that only this user can reach; raises NoEngine when another engine, or user, has the place.

    A lock beside it tells a living engine from one that was killed and left its socket behind.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if path.parent.stat().st_uid != os.getuid():
        msg = f"{path.parent} belongs to another user; set LAESCAN_ENGINE_SOCKET to a place of your own"
        raise NoEngine(msg)
    with path.with_suffix(".lock").open("w") as lock, wire.new_socket() as listener:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            msg = f"an engine is running at {path} already"
            raise NoEngine(msg) from error
        path.unlink(missing_ok=True)
        os.fchmod(listener.fileno(), 0o600)  # before `bind`, which makes the file with it: never open to others
        listener.bind(str(path))
        try:
            listener.listen(_BACKLOG)
            yield listener
        finally:
            path.unlink(missing_ok=True)
