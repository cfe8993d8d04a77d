"""Who is next at the engine: the oldest, the interactive ones before bulk, and bulk all the same."""

import itertools

from engines import inspecting, waiting
from hypothesis import given
from hypothesis import strategies as st

from scanner.engine.waiting import BULK_TURN, Queue


def queue_of(*requests, most=100):
    queue = Queue(most)
    for request in requests:
        assert queue.add(request)
    return queue


def taken(batch):
    """(whose, how many of his frames) in a batch."""
    return [(one, len(list(parts))) for one, parts in itertools.groupby(batch.parts, key=lambda part: part[0])]


def test_nobody_waits():
    assert Queue(1).take(4) is None


def test_a_batch_takes_what_waits_over_requests():
    a, b, c = waiting(), waiting(2), waiting()
    queue = queue_of(a, b, c)
    assert taken(queue.take(8)) == [(a, 1), (b, 2), (c, 1)]
    assert len(queue) == 0


def test_the_oldest_goes_first_even_when_it_comes_late():
    a, b = waiting(), waiting()
    assert queue_of(b, a).take(1).requests == [a]


def test_a_long_request_is_taken_in_parts_in_order():
    a = waiting(5)
    queue = queue_of(a)
    numbers = [[number for _, number in queue.take(2).parts] for _ in range(3)]
    assert numbers == [[0, 1], [2, 3], [4]]
    assert queue.take(2) is None


def test_somebody_who_waits_goes_before_bulk_that_was_begun():
    bulk = waiting(16, urgent=False)
    queue = queue_of(bulk)
    queue.take(4)
    late = waiting()
    queue.add(late)
    assert taken(queue.take(4)) == [(late, 1), (bulk, 3)]


def test_bulk_does_not_starve():
    bulk, urgent = waiting(16, urgent=False), waiting(100)
    queue = queue_of(urgent, bulk)
    batches = [queue.take(4) for _ in range(16)]
    assert [batch.requests for batch in batches].count([bulk]) == 16 / BULK_TURN
    assert batches[BULK_TURN - 1].requests == [bulk]


def test_other_wishes_make_another_batch():
    a, turned, larger, b = waiting(), waiting(quarters=1), waiting(min_face_px=80), waiting()
    queue = queue_of(a, turned, larger, b)
    assert [queue.take(8).requests for _ in range(3)] == [[a, b], [turned], [larger]]


def test_tiles_and_frames_take_turns_and_share_no_batch():
    tiles, frames = inspecting(16), [waiting(4) for _ in range(3)]
    queue = queue_of(tiles, *frames)
    taken_by = [queue.take(4).requests for _ in range(7)]
    assert taken_by == [[tiles], [frames[0]], [tiles], [frames[1]], [tiles], [frames[2]], [tiles]]


def test_tiles_of_several_pictures_share_a_batch():
    a, b = inspecting(3), inspecting(4)
    assert taken(queue_of(a, b).take(8)) == [(a, 3), (b, 4)]


def test_bulk_tiles_starve_neither_bulk_frames_nor_who_waits():
    tiles, frames, urgent = inspecting(160, urgent=False), waiting(4, urgent=False), waiting(100)
    queue = queue_of(tiles, frames, urgent)
    batches = [queue.take(4).requests for _ in range(3 * BULK_TURN)]
    assert batches.count([urgent]) == 9
    assert [batch for batch in batches if batch != [urgent]] == [[tiles], [frames], [tiles]]


def test_what_an_engine_died_of_is_looked_at_alone():
    a, suspect, b = waiting(), waiting(losses=1), waiting()
    queue = queue_of(a, suspect, b)
    assert [queue.take(8).requests for _ in range(2)] == [[a, b], [suspect]]
    suspect = waiting(losses=1)
    queue = queue_of(suspect, waiting())
    assert queue.take(8).requests == [suspect]


def test_a_full_queue_takes_nobody():
    a = waiting()
    queue = queue_of(a, most=1)
    assert not queue.add(waiting(urgent=False))
    queue.drop(a)
    assert queue.add(waiting())


def test_who_is_dropped_is_not_taken():
    a, b = waiting(3), waiting()
    queue = queue_of(a, b)
    queue.take(2)
    queue.drop(a)
    queue.drop(a)  # twice is no fault
    assert taken(queue.take(8)) == [(b, 1)]


@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans(), st.integers(0, 1), st.integers(0, 1)), max_size=12),
    st.integers(1, 6),
)
def test_every_frame_is_taken_exactly_once(requests, most_frames):
    made = [waiting(n, urgent=urgent, quarters=quarters, losses=losses) for n, urgent, quarters, losses in requests]
    queue = queue_of(*made)
    parts = []
    while batch := queue.take(most_frames):
        assert 1 <= len(batch.parts) <= most_frames
        assert len({one.look.quarters for one in batch.requests}) == 1
        assert len(batch.requests) == 1 or not any(one.look.losses for one in batch.requests)
        parts += batch.parts
    assert len(queue) == 0
    assert sorted(parts, key=lambda part: (part[0].look.asked_s, part[1])) == [
        (one, number) for one in made for number in range(len(one.frames))
    ]
