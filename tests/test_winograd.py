"""Fewer multiplications give the same convolution, for every shape that is let in; the others are not."""

import pytest
import torch
import torch.nn.functional as nnf

from scanner.detection.winograd import FROM_TILE, OF_FILTER, OUT, TILE, TO_TILE, Winograd, suits


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_the_matrices_are_a_correlation_exactly():
    to_tile, of_filter, from_tile = (torch.tensor(one, dtype=torch.float64) for one in (TO_TILE, OF_FILTER, FROM_TILE))
    for tap in torch.eye(3, dtype=torch.float64):
        for place in torch.eye(TILE, dtype=torch.float64):
            expected = (place.unfold(0, 3, 1) * tap).sum(1)
            got = from_tile @ ((of_filter @ tap) * (to_tile @ place))
            torch.testing.assert_close(got, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize(("count", "height", "width"), [(1, 4, 4), (1, 16, 16), (5, 8, 8), (2, 4, 12), (3, 12, 4)])
def test_it_is_the_convolution_up_to_its_edges(count, height, width, relu):
    x, weight, bias = random(count, 24, height, width), random(40, 24, 3, 3, seed=1) / 15, random(40, seed=2)
    expected = nnf.conv2d(x.double(), weight.double(), bias.double(), padding=1)
    got = Winograd.of(weight, bias, relu=relu)(x.contiguous(memory_format=torch.channels_last))
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got.double(), expected.relu() if relu else expected, rtol=0, atol=3e-5)


def test_it_leaves_what_it_was_given_alone():
    x = random(2, 8, 8, 8).contiguous(memory_format=torch.channels_last)
    before = x.clone()
    run = Winograd.of(random(8, 8, 3, 3), random(8), relu=True)
    first, second = run(x), run(x)
    assert torch.equal(x, before)
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("shape", "side", "stride", "dtype"),
    [
        ((128, 128, 3, 3), 16, 2, torch.float32),  # it knows no strides
        ((128, 128, 3, 3), 4 * OUT + 2, 1, torch.float32),  # tiles would hang over
        ((128, 64, 3, 3), 16, 1, torch.float32),  # too narrow to pay
        ((64, 128, 3, 3), 16, 1, torch.float32),
        ((128, 128, 1, 1), 16, 1, torch.float32),
        ((128, 128, 3, 3), 16, 1, torch.bfloat16),  # too few digits
    ],
)
def test_what_it_would_get_wrong_or_slow_is_not_let_in(shape, side, stride, dtype):
    assert suits(torch.empty(128, 128, 3, 3), 16, 1)
    assert not suits(torch.empty(shape, dtype=dtype), side, stride)
