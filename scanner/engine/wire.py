"""What the engine and its clients say: one packet each way, pixels and faces beside it in shared memory.

    client  -- Look or Inspect, descriptor of the frames or tiles -->  engine      or  -- Ask -->
    client  <-- Started, then Done with a descriptor of what was seen, Busy or Refused --      or  <-- Status --

One connection is one request: whoever goes away takes what was his along, and nothing has to be told apart.
Packets (SOCK_SEQPACKET) arrive whole or not at all, so a header cannot be cut and a descriptor belongs to its header.
The memory is sealed before it is sent: a sender that shrinks it while the other side reads would kill the reader.
"""

import fcntl
import math
import mmap
import os
import socket
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from scanner.contract import ModelInfo
from scanner.decoding.frames import CHANNELS, write_all
from scanner.detection.faces import Face, Quality
from scanner.detection.model import Pixels, SeenFace, SeenTile
from scanner.detection.tiles import MAX_TILES, TILE_PX
from scanner.folders import state_path
from scanner.settings import Settings
from scanner.verdict import Calibration

PACKET_BYTES = 65_536
"""Longest header: one with 512 frames has 8 kB."""
SEEN_BYTES = 200_000_000
"""Longest answer: 512 frames with 256 faces each have 170 MB, 16 with one 22 kB, 192 tiles 200 kB."""
MAX_FRAMES = 512
_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_SOCKET = "engine.sock"
_DESCRIPTOR = struct.Struct("i")
_CREDENTIALS = struct.Struct("3i")  # ucred of unix(7): pid, uid, gid

Side = Annotated[int, Meta(ge=1, le=65_535)]


class WireError(ValueError):
    """What came is not what was agreed."""


class Place(msgspec.Struct, frozen=True, array_like=True):
    """One frame in the memory: (height, width, 3) uint8 from byte `offset` on."""

    width: Side
    height: Side
    offset: Annotated[int, Meta(ge=0)]


class _Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to say of any pixels that are to be looked at; they lie beside it.

    `asked_s` (CLOCK_MONOTONIC, one for the whole machine) keeps its place in the queue when it is asked again, and
    `losses` counts the engines that died while they looked at it.
    """

    model_id: str
    frames: Annotated[tuple[Place, ...], Meta(min_length=1, max_length=MAX_FRAMES)]
    urgent: bool
    asked_s: Annotated[float, Meta(ge=0)]
    losses: Annotated[int, Meta(ge=0)]


class Look(_Wish, frozen=True, kw_only=True, tag="look", forbid_unknown_fields=True):
    """A wish for the faces of some frames, each turned by so many quarters first."""

    quarters: Annotated[int, Meta(ge=0, le=3)]
    min_face_px: Annotated[int, Meta(ge=16)]
    max_faces: Annotated[int, Meta(ge=1, le=256)]


class Inspect(_Wish, frozen=True, kw_only=True, tag="inspect", forbid_unknown_fields=True):
    """A wish for what the tiles of a picture look like; raises ValueError for other `frames` than tiles."""

    def __post_init__(self) -> None:
        if len(self.frames) > MAX_TILES or any((p.width, p.height) != (TILE_PX, TILE_PX) for p in self.frames):
            msg = f"at most {MAX_TILES} tiles of {TILE_PX}x{TILE_PX} can be inspected at once"
            raise ValueError(msg)


class Ask(msgspec.Struct, frozen=True, tag="ask", forbid_unknown_fields=True):
    """A wish to hear who is there and how it is."""


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """Who judges, and how the engine is; sums are since its start."""

    info: ModelInfo
    calibration: Calibration
    region_calibration: Calibration | None = None  # None: it does not look at whole pictures
    pid: int
    up_s: float
    queued: int  # requests whose frames were not all taken yet, the urgent ones
    queued_bulk: int  # and the others
    batch_s: float | None  # age of the batch that runs, None between two
    batches: int
    frames: int
    faces: int
    tiles: int = 0
    halvings: int  # batches that did not fit into the device's memory
    waited_s: float  # from the ask to the first batch, over all requests that got so far
    worked_s: float  # in batches


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The first of the frames is being looked at: from now on the request may be what kills the engine."""


class Done(msgspec.Struct, frozen=True, tag="done"):
    """What was seen lies beside it."""


class Busy(msgspec.Struct, frozen=True, tag="busy"):
    """The queue is full; ask again in a moment."""


class Refused(msgspec.Struct, frozen=True, tag="refused"):
    """There will be no answer; `code` is one of `scanner.errors`."""

    code: str
    message: str


class _WireFace(msgspec.Struct, frozen=True, array_like=True):
    box: tuple[float, float, float, float]
    landmarks: bytes  # (5, 2) float32
    confidence: float
    quality: float
    warnings: tuple[str, ...]
    crop_to_frame: bytes  # (2, 3) float64
    raw: float
    attention: bytes  # (side, side) float32


Wish = Look | Inspect
Request = Wish | Ask
Answer = Status | Started | Done | Busy | Refused


def socket_path(settings: Settings) -> Path:
    """Where the engine listens: as set, or in the state folder, where `laescan serve` and all who ask find it."""
    return Path(settings.engine_socket or state_path(settings) / _SOCKET)


def new_socket() -> socket.socket:
    """A socket of the agreed kind that never blocks."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)


def listener_uid(connection: socket.socket) -> int:
    """Whose process listens at the other end: what a path is called says nothing of who made it."""
    found = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(found)[1])


def send(to: socket.socket, message: Request | Answer, descriptor: int | None = None) -> None:
    """Send one packet, with a descriptor beside it; raises OSError when it cannot go at once."""
    beside = [] if descriptor is None else [(socket.SOL_SOCKET, socket.SCM_RIGHTS, _DESCRIPTOR.pack(descriptor))]
    to.sendmsg([msgspec.msgpack.encode(message)], beside)


def receive(source: socket.socket) -> tuple[bytes, int | None]:
    """One packet, and the descriptor beside it, the receiver's to close; b"" at the end.

    Raises WireError for a packet that is too long or brings more than one descriptor, BlockingIOError when there is
    none, ConnectionError.
    """
    room = socket.CMSG_LEN(_DESCRIPTOR.size)  # for one: the kernel closes what else comes, and says so
    data, beside, flags, _ = source.recvmsg(PACKET_BYTES, room, socket.MSG_CMSG_CLOEXEC)
    descriptor = _DESCRIPTOR.unpack(beside[0][2])[0] if beside else None
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        if descriptor is not None:
            os.close(descriptor)
        msg = f"a packet of more than {PACKET_BYTES} bytes, or with more than one descriptor"
        raise WireError(msg)
    return data, descriptor


def sealed(parts: Iterable[memoryview], name: str) -> int:
    """The descriptor of shared memory that holds these bytes and can never change; the caller's to close."""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(descriptor, "wb", buffering=0, closefd=False) as file:
            for part in parts:
                write_all(file, part)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_SEAL)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def mapped(descriptor: int | None, most_bytes: int) -> memoryview:
    """The sealed memory behind a descriptor, which is closed; it lives as long as the view, and nothing is copied.

    Raises WireError unless it is memory, sealed, and of 1 to `most_bytes` bytes.
    """
    if descriptor is None:
        msg = "no memory came with the packet"
        raise WireError(msg)
    try:
        seals, size_bytes = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS), os.fstat(descriptor).st_size
        if seals & _SEALS != _SEALS or not 0 < size_bytes <= most_bytes:
            msg = f"memory with seals {seals:#x} and {size_bytes} bytes; it must be sealed, of 1 to {most_bytes} bytes"
            raise WireError(msg)
        # private: Linux before 6.7 refuses a shared view of sealed memory, and torch wants arrays that could be written
        return memoryview(mmap.mmap(descriptor, size_bytes, access=mmap.ACCESS_COPY))
    except OSError as error:  # EINVAL: a file, a pipe, a socket
        msg = f"what came with the packet is not shared memory ({error})"
        raise WireError(msg) from error
    finally:
        os.close(descriptor)


def packed(frames: Sequence[Pixels]) -> tuple[int, tuple[Place, ...]]:
    """Frames (H, W, 3) uint8 as sealed memory and where each lies in it."""
    places, offset = [], 0
    for frame in frames:
        height, width, _ = frame.shape
        places.append(Place(width, height, offset))
        offset += frame.size
    return sealed((np.ascontiguousarray(frame).data.cast("B") for frame in frames), "laescan-frames"), tuple(places)


def unpacked(places: Sequence[Place], memory: memoryview) -> list[Pixels]:
    """The frames over the memory; raises WireError when one would reach beyond it."""
    frames = []
    for place in places:
        count = place.height * place.width * CHANNELS
        if place.offset + count > len(memory):
            msg = f"a frame of {place.width}x{place.height} at {place.offset} in {len(memory)} bytes"
            raise WireError(msg)
        flat = np.frombuffer(memory, np.uint8, count=count, offset=place.offset)
        frames.append(flat.reshape(place.height, place.width, CHANNELS))
    return frames


def packed_seen(seen: Iterable[Sequence[SeenFace] | SeenTile]) -> int:
    """The faces of each frame, or what was seen in each tile, as sealed memory."""
    wire = [_tile(one) if isinstance(one, SeenTile) else [_to_wire(face) for face in one] for one in seen]
    return sealed([memoryview(msgspec.msgpack.encode(wire))], "laescan-seen")


def unpacked_tiles(memory: memoryview) -> list[SeenTile]:
    """The reverse of `packed_seen` for tiles; raises WireError."""
    try:
        wire = msgspec.msgpack.decode(memory, type=list[tuple[float, bytes]])
        return [SeenTile(raw, _square(attention)) for raw, attention in wire]
    except (ValueError, RecursionError) as error:
        msg = f"tiles that make no sense ({error})"
        raise WireError(msg) from error


def unpacked_faces(memory: memoryview) -> list[list[SeenFace]]:
    """The reverse of `packed_seen` for frames; raises WireError."""
    try:
        wire = msgspec.msgpack.decode(memory, type=list[list[_WireFace]])
        return [[_from_wire(one) for one in of_frame] for of_frame in wire]
    except (ValueError, RecursionError) as error:
        msg = f"faces that make no sense ({error})"
        raise WireError(msg) from error


def _to_wire(seen: SeenFace) -> _WireFace:
    face, quality = seen.face, seen.quality
    return _WireFace(
        box=face.box,
        landmarks=face.landmarks.astype(np.float32).tobytes(),
        confidence=face.confidence,
        quality=quality.score,
        warnings=quality.warnings,
        crop_to_frame=seen.crop_to_frame.astype(np.float64).tobytes(),
        raw=seen.raw,
        attention=seen.attention.astype(np.float32).tobytes(),
    )


def _tile(seen: SeenTile) -> tuple[float, bytes]:
    return seen.raw, seen.attention.astype(np.float32).tobytes()


def _from_wire(wire: _WireFace) -> SeenFace:
    return SeenFace(
        face=Face(wire.box, np.frombuffer(wire.landmarks, np.float32).reshape(5, 2), wire.confidence),
        quality=Quality(wire.quality, wire.warnings),
        crop_to_frame=np.frombuffer(wire.crop_to_frame, np.float64).reshape(2, 3),
        raw=wire.raw,
        attention=_square(wire.attention),
    )


def _square(attention: bytes) -> npt.NDArray[np.float32]:
    cells = np.frombuffer(attention, np.float32)
    side = math.isqrt(cells.size)
    return cells.reshape(side, side)
