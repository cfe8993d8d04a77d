"""What crosses between engine and client arrives as it was sent; what was not agreed is refused and nothing kept."""

import array
import gc
import mmap
import os
import socket
from pathlib import Path

import msgspec
import numpy as np
import pytest
from engines import FakeModel, frame, inspecting, waiting

from scanner.engine import wire
from scanner.settings import Settings


@pytest.fixture
def ends():
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    yield pair
    for end in pair:
        end.close()


@pytest.fixture(autouse=True, scope="module")
def nothing_of_others():
    """What the files before this one left open to be collected would be closed in the middle of a count."""
    gc.collect()


@pytest.fixture(autouse=True)
def descriptors():
    """Whatever a test does, no descriptor is left."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    yield
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_frames_arrive_as_they_were_sent(ends):
    large = np.random.default_rng(1).integers(0, 256, (30, 40, 3), np.uint8)
    sent = [large, large[::2, ::-2], frame(7)]  # the second is no contiguous memory
    memory, places = wire.packed(sent)
    wire.send(ends[0], msgspec.structs.replace(waiting().look, frames=places), memory)
    os.close(memory)
    data, descriptor = wire.receive(ends[1])
    look = msgspec.msgpack.decode(data, type=wire.Request)
    arrived = wire.unpacked(look.frames, wire.mapped(descriptor, 10_000))
    assert all(np.array_equal(a, b) for a, b in zip(sent, arrived, strict=True))
    assert look.frames == places
    del arrived


def test_faces_arrive_as_they_were_sent():
    sent = FakeModel().see([frame(7), frame(0), frame(200)])
    arrived = wire.unpacked_faces(wire.mapped(wire.packed_seen(sent), 10_000))
    assert [len(of_frame) for of_frame in arrived] == [1, 0, 1]
    for one, other in ((sent[0][0], arrived[0][0]), (sent[2][0], arrived[2][0])):
        assert (one.face.box, one.face.confidence, one.quality, one.raw) == (
            other.face.box,
            other.face.confidence,
            other.quality,
            other.raw,
        )
        assert np.array_equal(one.face.landmarks, other.face.landmarks)
        assert np.array_equal(one.crop_to_frame, other.crop_to_frame)
        assert np.array_equal(one.attention, other.attention)


def test_tiles_arrive_as_they_were_sent():
    sent = FakeModel().see_tiles([frame(7), frame(200)])
    arrived = wire.unpacked_tiles(wire.mapped(wire.packed_seen(sent), 10_000))
    assert [one.raw for one in arrived] == [one.raw for one in sent]
    assert all(np.array_equal(a.attention, b.attention) for a, b in zip(sent, arrived, strict=True))


def test_faces_are_no_tiles_and_tiles_no_faces():
    tiles, faces = FakeModel().see_tiles([frame(7)]), FakeModel().see([frame(7)])
    for seen, unpacked in ((tiles, wire.unpacked_faces), (faces, wire.unpacked_tiles)):
        with pytest.raises(wire.WireError):
            unpacked(wire.mapped(wire.packed_seen(seen), 10_000))


@pytest.mark.parametrize("places", [[wire.Place(256, 255, 0)], [wire.Place(256, 256, 0)] * 193, []])
def test_only_tiles_can_be_inspected_and_not_too_many(places):
    good = msgspec.msgpack.decode(msgspec.msgpack.encode(inspecting().look))
    data = msgspec.msgpack.encode({**good, "frames": places})
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(data, type=wire.Request)


def test_what_was_sent_can_never_change():
    memory, _ = wire.packed([frame(7)])
    for change in (lambda: os.ftruncate(memory, 1), lambda: os.pwrite(memory, b"x", 0), lambda: mmap.mmap(memory, 576)):
        with pytest.raises(PermissionError):
            change()
    os.close(memory)


def unsealed():
    descriptor = os.memfd_create("test", os.MFD_ALLOW_SEALING)
    os.write(descriptor, bytes(100))
    return descriptor


@pytest.mark.parametrize(
    ("descriptor", "words"),
    [
        (lambda: None, "no memory"),
        (unsealed, "must be sealed"),
        (lambda: os.open(__file__, os.O_RDONLY), "not shared memory"),
        (lambda: os.open("/dev/zero", os.O_RDONLY), "not shared memory"),
        (lambda: wire.sealed([memoryview(bytes(101))], "test"), "101 bytes"),
        (lambda: wire.sealed([], "test"), "0 bytes"),
    ],
    ids=["none", "unsealed", "file", "device", "too large", "empty"],
)
def test_only_sealed_memory_of_the_right_size_is_looked_into(descriptor, words):
    with pytest.raises(wire.WireError, match=words):
        wire.mapped(descriptor(), 100)


@pytest.mark.parametrize("place", [(16, 12, 1), (17, 12, 0), (65_535, 65_535, 0), (1, 1, 2**62)])
def test_a_frame_beyond_its_memory_is_refused(place):
    memory, _ = wire.packed([frame(7)])
    view = wire.mapped(memory, 10_000)
    with pytest.raises(wire.WireError, match="in 576 bytes"):
        wire.unpacked([wire.Place(*place)], view)


def test_a_packet_that_is_too_long_is_refused_whole(ends):
    ends[0].send(bytes(wire.PACKET_BYTES + 1))
    ends[0].send(b"next")
    with pytest.raises(wire.WireError):
        wire.receive(ends[1])
    assert wire.receive(ends[1]) == (b"next", None)


def test_two_descriptors_are_refused_and_closed(ends):
    rights = array.array("i", [ends[0].fileno(), ends[1].fileno()])
    ends[0].sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    with pytest.raises(wire.WireError):
        wire.receive(ends[1])


def test_what_arrives_is_not_inherited_by_children(ends):
    memory, _ = wire.packed([frame(7)])
    wire.send(ends[0], wire.Done(), memory)
    _, arrived = wire.receive(ends[1])
    assert not os.get_inheritable(arrived)
    os.close(memory)
    os.close(arrived)


@pytest.mark.parametrize(
    "change",
    [
        {"frames": []},
        {"frames": [[16, 12, 0]] * 513},
        {"frames": [[0, 12, 0]]},
        {"frames": [[16, 70_000, 0]]},
        {"frames": [[16, 12, -1]]},
        {"quarters": 4},
        {"min_face_px": 1},
        {"max_faces": 0},
        {"asked_s": float("nan")},
        {"losses": -1},
        {"more": 1},
        {"type": "unknown"},
    ],
    ids=str,
)
def test_a_header_out_of_bounds_is_refused(change):
    header = {**msgspec.to_builtins(waiting().look), **change}
    with pytest.raises(msgspec.ValidationError):
        msgspec.msgpack.decode(msgspec.msgpack.encode(header), type=wire.Request)


@pytest.mark.parametrize("nonsense", [b"", b"\xc1", msgspec.msgpack.encode([[1]]), msgspec.msgpack.encode("faces")])
def test_faces_that_make_no_sense_are_refused(nonsense):
    with pytest.raises(wire.WireError):
        wire.unpacked_faces(memoryview(nonsense))


def test_faces_of_another_shape_are_refused():
    (one,) = FakeModel().see([frame(7)])[0]
    memory = wire.mapped(wire.packed_seen([[one]]), 10_000)
    wire_face = msgspec.msgpack.decode(memory)[0][0]
    for at, cut in ((1, b"123"), (5, b"1234567"), (7, bytes(4 * 17))):
        broken = [*wire_face[:at], cut, *wire_face[at + 1 :]]
        with pytest.raises(wire.WireError):
            wire.unpacked_faces(memoryview(msgspec.msgpack.encode([[broken]])))


def test_the_socket_is_where_it_was_set_or_beside_the_services_state(tmp_path):
    state = str(tmp_path / "s")
    assert wire.socket_path(Settings(engine_socket=str(tmp_path / "e"), state=state)) == tmp_path / "e"
    assert wire.socket_path(Settings(state=state)) == tmp_path / "s" / "engine.sock"
    assert not (tmp_path / "s").exists(), "who only asks makes no folder"
