"""The model in the engine's process, as this process sees it: frames there, faces back. Never loads torch.

One reason: an engine may be killed and started again at any moment, and nobody who asks through this notices more than
the time that it takes. Looking changes nothing, so whatever got no answer is simply asked again.
"""

import asyncio
import os
import random
import socket
import time
from collections.abc import Awaitable, Callable, Generator, Sequence
from pathlib import Path
from typing import TypeVar, cast

import msgspec
from msgspec.structs import replace

from scanner.detection import tiles
from scanner.detection.faces import Glance, all_around
from scanner.detection.model import Pixels, SeenFace
from scanner.detection.survey import Survey
from scanner.engine import wire
from scanner.errors import Internal, NoEngine, by_code
from scanner.settings import Settings

MOST_LOSSES = 3
"""Engines that may die while they look at one request: then it is what kills them, or nobody is safe here."""
_Seen = TypeVar("_Seen")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.02, 0.5


class EngineClient:
    """A Model; any number of looks at once, from any event loop. It holds nothing open between two looks."""

    def __init__(self, path: Path, settings: Settings, status: wire.Status) -> None:
        self.path = path
        self.info, self.calibration = status.info, status.calibration
        self.region_calibration = status.region_calibration
        self._settings = settings

    @classmethod
    def open(
        cls, settings: Settings, *, path: Path | None = None, is_over: Callable[[], bool] = lambda: False
    ) -> "EngineClient":
        """Ask the engine at `path` (default: the settings') who it is; waits for one that starts. Raises NoEngine.

        Once it is over no further engine is waited for: a thread cannot be cancelled.
        """
        path = path or wire.socket_path(settings)
        deadline_s = time.monotonic() + settings.engine_timeout_s
        pauses = _Pauses()
        while True:
            try:
                there = status(path, timeout_s=deadline_s - time.monotonic())
            except NoEngine:
                pause_s = pauses.next()
                if is_over() or time.monotonic() + pause_s >= deadline_s:
                    raise
                time.sleep(pause_s)
                continue
            if settings.regions and there.region_calibration is None:
                msg = f"the engine at {path} judges faces only; start it again with LAESCAN_REGIONS=true, too"
                raise NoEngine(msg)
            return cls(path, settings, there)

    async def look(self, frames: Sequence[Pixels], *, urgent: bool = True) -> list[list[SeenFace]]:
        """The faces of each frame (H, W, 3) uint8 RGB of one medium, largest first.

        Raises NoEngine when none answers within the settings' time, ModelChanged, OutOfMemory.
        """
        memory, places = await asyncio.to_thread(wire.packed, frames)
        whole = wire.Look(
            model_id=self.info.model_id,
            frames=places,
            quarters=0,
            min_face_px=self._settings.min_face_px,
            max_faces=self._settings.max_faces,
            urgent=urgent,
            asked_s=time.monotonic(),
            losses=0,
        )

        async def see(glance: Glance) -> list[list[SeenFace]]:
            chosen = tuple(places[i] for i in glance.frames)
            wish = replace(whole, frames=chosen, quarters=glance.quarters)
            return _complete(wire.unpacked_faces(await self._insist(wish, memory)), wish)

        try:
            return await _answered(all_around([frame.shape for frame in frames]), see)
        finally:
            os.close(memory)

    async def survey(self, picture: Pixels, *, urgent: bool = True) -> Survey | None:
        """What the tiles of a picture (H, W, 3) uint8 RGB look like; None when the engine looks at faces only.

        They are cut here, so the engine holds 38 MB at most for each who asks. Raises as `look`.
        """
        if self.region_calibration is None:
            return None
        size = picture.shape[:2]
        plan = tiles.plan(*size)
        memory, places = await asyncio.to_thread(lambda: wire.packed(list(tiles.cut(picture, plan))))
        wish = wire.Inspect(
            model_id=self.info.model_id, frames=places, urgent=urgent, asked_s=time.monotonic(), losses=0
        )
        try:
            seen = wire.unpacked_tiles(await self._insist(wish, memory))
        finally:
            os.close(memory)
        return Survey(size, plan, _complete(seen, wish), self.region_calibration)

    async def _insist(self, look: wire.Wish, memory: int) -> memoryview:
        """Ask until there is an answer; out: what was seen, packed."""
        deadline_s, pauses = look.asked_s + self._settings.engine_timeout_s, _Pauses()
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + deadline_s - time.monotonic()):
                while look.losses < MOST_LOSSES:
                    try:
                        return await self._ask(look, memory)
                    except _LostError:
                        look = replace(look, losses=look.losses + 1)
                    except OSError:  # busy, no engine, or it went away before it began
                        pass
                    await asyncio.sleep(pauses.next())
        except TimeoutError as error:
            raise _no_engine(self.path, f"within {self._settings.engine_timeout_s:g} s") from error
        msg = f"the engine died {MOST_LOSSES} times while it looked at this; its log tells why"
        raise NoEngine(msg)

    async def _ask(self, look: wire.Wish, memory: int) -> memoryview:
        """Ask once; raises OSError when the engine cannot be reached, _LostError when it died over this."""
        with wire.new_socket() as connection:
            _connect(connection, self.path)  # at once or not at all: BlockingIOError when its backlog is full
            wire.send(connection, look, memory)
            answer, seen = await _next(connection)
            if answer is None or isinstance(answer, wire.Busy):
                raise ConnectionResetError  # not now
            if isinstance(answer, wire.Started):
                try:
                    answer, seen = await _next(connection)
                except ConnectionError as error:
                    raise _LostError from error
        if isinstance(answer, wire.Done):
            return memoryview(b"") if seen is None else seen
        if isinstance(answer, wire.Refused):
            raise by_code().get(answer.code, Internal)(answer.message)
        raise _LostError


class _LostError(Exception):
    """The engine died while it looked at what we asked."""


class _Pauses:
    """Longer and longer, and for each client others, so that they do not all come back in one moment."""

    def __init__(self) -> None:
        self._longest_s = _FIRST_PAUSE_S

    def next(self) -> float:
        """How long to wait before the next try."""
        self._longest_s = min(2 * self._longest_s, _LONGEST_PAUSE_S)
        return random.uniform(0.5, 1.0) * self._longest_s  # noqa: S311 - spreads load, hides nothing


def status(path: Path, *, timeout_s: float) -> wire.Status:
    """Who is at `path`, and how it is; blocks. Raises NoEngine when nobody answers in time."""
    with wire.new_socket() as connection:
        connection.settimeout(max(timeout_s, 0.001))
        try:
            _connect(connection, path)
            wire.send(connection, wire.Ask())
            answer, _ = _heard(connection)
        except (OSError, wire.WireError) as error:
            raise _no_engine(path, f"({error})") from error
    if not isinstance(answer, wire.Status):
        raise _no_engine(path, "(it hung up)")
    return answer


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect to an engine of ours or of root's; raises OSError, and NoEngine when it is somebody else's.

    Who makes its folder before us would otherwise be shown every frame, and say what is authentic.
    """
    connection.connect(str(path))
    uid = wire.listener_uid(connection)
    if uid not in {0, os.geteuid()}:
        msg = f"what listens at {path} is of another user (uid {uid}), and is told nothing; set LAESCAN_ENGINE_SOCKET"
        raise NoEngine(msg)


async def _answered(
    plan: Generator[Glance, list[list[SeenFace]], list[list[SeenFace]]],
    see: Callable[[Glance], Awaitable[list[list[SeenFace]]]],
) -> list[list[SeenFace]]:
    """`faces.answered`, where answers are waited for."""
    seen: list[list[SeenFace]] | None = None
    while True:
        try:
            glance = next(plan) if seen is None else plan.send(seen)
        except StopIteration as ended:
            return cast("list[list[SeenFace]]", ended.value)
        seen = await see(glance)


async def _next(connection: socket.socket) -> tuple[wire.Answer | None, memoryview | None]:
    """Wait for the next packet; see `_heard`."""
    loop, is_there = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(connection, is_there.set)
    try:
        await is_there.wait()
    finally:
        loop.remove_reader(connection)
    return _heard(connection)


def _heard(connection: socket.socket) -> tuple[wire.Answer | None, memoryview | None]:
    """The next packet and the memory beside it; None at the end. Raises OSError, or WireError for nonsense."""
    data, descriptor = wire.receive(connection)
    memory = None if descriptor is None else wire.mapped(descriptor, wire.SEEN_BYTES)
    try:
        return (msgspec.msgpack.decode(data, type=wire.Answer) if data else None), memory
    except (msgspec.MsgspecError, RecursionError) as error:
        msg = f"an answer that makes no sense ({error})"
        raise wire.WireError(msg) from error


def _complete(seen: list[_Seen], wish: wire.Wish) -> list[_Seen]:
    if len(seen) != len(wish.frames):
        msg = f"the engine answered {len(seen)} frames instead of {len(wish.frames)}"
        raise wire.WireError(msg)
    return seen


def _no_engine(path: Path, when: str) -> NoEngine:
    return NoEngine(f"no engine answers at {path} {when}; `laescan serve` starts one, and so does `laescan engine`")
