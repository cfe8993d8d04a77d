"""Batches that fail: what does not fit is halved, and only the frame that is to blame has no answer."""

import pytest
import torch
from engines import FakeModel, frame, inspecting, values, waiting

from scanner.detection.seer import MOST_FRAMES, Seer
from scanner.engine.waiting import Batch
from scanner.errors import Internal, OutOfMemory


def batch(*brightnesses):
    one = waiting(len(brightnesses))
    one.frames = [frame(value) for value in brightnesses]
    return Batch(tuple((one, number) for number in range(len(brightnesses))))


def memory_for(most):
    def fault(frames):
        if len(frames) > most:
            raise torch.OutOfMemoryError

    return fault


def test_what_does_not_fit_is_halved_until_it_does():
    model = FakeModel(fault=memory_for(1))
    seer = Seer(model)
    assert values(seer.see(batch(1, 2, 3, 4))) == [[1], [2], [3], [4]]
    assert model.batches == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4], [3], [4]]
    assert (seer.room, seer.halvings) == (1, 3)


def test_tiles_that_do_not_fit_are_halved_like_frames():
    model = FakeModel(fault=memory_for(1))
    one = inspecting(3)
    one.frames = [frame(value) for value in (1, 2, 3)]
    seen = Seer(model).see(Batch(tuple((one, number) for number in range(3))))
    assert [round(255 * tile.raw) for tile in seen] == [1, 2, 3]


def test_the_next_batch_asks_for_no_more_than_did_fit_and_then_for_a_little_more():
    model = FakeModel(fault=memory_for(2))
    seer = Seer(model)
    seer.see(batch(1, 2, 3, 4))
    assert seer.room == 2
    seer.see(batch(1))
    assert seer.room == 2, "a batch that was not full says nothing about room"
    model.fault = None
    for _ in range(9):
        seer.see(batch(*range(1, seer.room + 1)))
    assert seer.room == MOST_FRAMES["cpu"]


def test_a_frame_too_large_for_the_device_fails_alone():
    def fault(frames):
        if any(one[0, 0, 0] == 7 for one in frames):
            raise torch.OutOfMemoryError

    seen = Seer(FakeModel(fault=fault)).see(batch(1, 7, 3))
    assert values([seen[0], seen[2]]) == [[1], [3]]
    assert isinstance(seen[1], OutOfMemory)
    assert "LAESCAN_MAX_DECODED_BYTES" in str(seen[1])


@pytest.mark.parametrize("error", [RuntimeError, ValueError])
def test_a_frame_that_breaks_the_model_fails_alone_and_is_logged(error, caplog):
    def fault(frames):
        if any(one[0, 0, 0] == 7 for one in frames):
            raise error(7)

    seen = Seer(FakeModel(fault=fault)).see(batch(7, 2, 3, 4))
    assert isinstance(seen[0], Internal)
    assert values(seen[1:]) == [[2], [3], [4]]
    assert f"{error.__name__}: 7" in str(seen[0])
    assert "Traceback" in caplog.text


def test_a_lost_device_is_not_survived():
    def fault(frames):
        raise torch.AcceleratorError

    model = FakeModel(fault=fault)
    with pytest.raises(torch.AcceleratorError):
        Seer(model).see(batch(1, 2))
    assert len(model.batches) == 1, "nothing works on a lost device"
