"""Batches go through the graph of the next larger bucket; what is left in it from older batches is never answered.

CUDA records graphs; here a stand-in of the recorder runs the network itself over the buffer, as a replay would.
"""

import pytest
import torch

from scanner.detection.graphs import BUCKETS, Captured, Graphed


class Recorder:
    """Keeps what was recorded and how often it was replayed."""

    def __init__(self):
        self.recorded, self.replays = [], 0

    def __call__(self, run, shape):
        self.recorded.append(shape)
        crops = torch.zeros(shape, dtype=torch.uint8)
        answers = tuple(answer.clone() for answer in run(crops))

        def replay():
            self.replays += 1
            for kept, new in zip(answers, run(crops), strict=True):
                kept.copy_(new)

        return Captured(crops, answers, replay)


def run(crops):
    """Two answers that tell which crop they are of."""
    values = crops.float().mean((1, 2, 3))
    return values, values[:, None, None].expand(-1, 2, 2)


def crops(*values):
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)


def test_a_batch_is_answered_as_without_graphs():
    graphed = Graphed(run, Recorder())
    for batch in (crops(7), crops(1, 2, 3), crops(*range(33))):
        for ours, theirs in zip(graphed(batch), run(batch), strict=True):
            assert torch.equal(ours, theirs)


def test_a_shorter_batch_gets_no_answers_of_a_longer_one_before():
    graphed = Graphed(run, Recorder())
    graphed(crops(9, 9, 9, 9))
    values, _ = graphed(crops(1, 2, 3))
    assert values.tolist() == [1, 2, 3]


def test_an_answer_stays_when_the_next_batch_comes():
    graphed = Graphed(run, Recorder())
    first, _ = graphed(crops(1, 2))
    graphed(crops(8, 9))
    assert first.tolist() == [1, 2]


def test_each_bucket_is_recorded_once():
    recorder = Recorder()
    graphed = Graphed(run, recorder)
    for size in (3, 4, 3, 1, 5, 8):
        graphed(crops(*range(size)))
    assert [shape[0] for shape in recorder.recorded] == [4, 1, 8]
    assert recorder.replays == 6


@pytest.mark.parametrize("size", [0, BUCKETS[-1] + 1])
def test_what_no_bucket_holds_is_run_as_it_is(size):
    recorder = Recorder()
    values, _ = Graphed(run, recorder)(crops(*(n % 256 for n in range(size))) if size else torch.zeros(0, 4, 4, 3))
    assert len(values) == size
    assert recorder.recorded == []
