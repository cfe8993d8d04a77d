"""Tiles cover the picture at its own size; their scores and maps come back as boxes where the matter lies."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.detection.tiles import (
    CELL_PX,
    MAX_TILES,
    STRIDE_PX,
    TILE_PX,
    Tile,
    cut,
    merge,
    padded,
    plan,
    regions,
    starts,
)

SIDE = st.integers(1, 3000)


@given(SIDE)
def test_starts_cover_a_side_and_stay_inside(length):
    at = starts(length)
    assert at[0] == 0
    assert at == sorted(set(at))
    assert at[-1] == max(0, length - TILE_PX)
    assert all(b - a <= STRIDE_PX for a, b in pairwise(at))


@given(SIDE, SIDE)
def test_a_picture_never_takes_more_tiles_than_allowed(height, width):
    tiles = plan(height, width, max_tiles=40)
    assert len(tiles) <= 40 or min(height, width) * tiles[0].scale <= TILE_PX
    assert tiles[0].scale <= 1


def test_small_pictures_are_seen_at_their_own_size_only_and_large_ones_also_at_half():
    assert plan(321, 481) == [Tile(x, y, 1.0) for y in (0, 65) for x in (0, 192, 225)]
    assert {t.scale for t in plan(512, 768)} == {1.0, 0.5}
    assert plan(100, 80) == [Tile(0, 0, 1.0)]
    huge = plan(6000, 8000)
    assert len(huge) <= MAX_TILES
    assert huge[0].scale < 1


def test_tiles_hold_the_pixels_of_their_box():
    picture = np.random.default_rng(0).integers(0, 255, (321, 481, 3), dtype=np.uint8)
    tiles = plan(*picture.shape[:2])
    crops = cut(picture, tiles)
    assert (crops.shape, crops.dtype) == ((6, TILE_PX, TILE_PX, 3), np.uint8)
    for tile, crop in zip(tiles, crops, strict=True):
        x0, y0, x1, y1 = map(int, tile.box)
        assert (picture[y0:y1, x0:x1] == crop).all()
    assert cut(picture, []).shape == (0, TILE_PX, TILE_PX, 3)


def test_half_size_tiles_show_twice_as_much():
    picture = np.zeros((512, 512, 3), np.uint8)
    picture[256:, 256:] = 200
    (half,) = (t for t in plan(512, 512) if t.scale == 0.5)
    assert half.box == (0, 0, 512, 512)
    (crop,) = cut(picture, [half])
    assert (crop[128:, 128:] == 200).all()
    assert (crop[:128] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1, 3), (40, 300, 3), (255, 256, 3), (100, 80)])
def test_what_is_missing_is_mirrored_and_never_enlarged(shape):
    picture = np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)
    whole = padded(picture)
    assert whole.shape[:2] == tuple(max(TILE_PX, side) for side in shape[:2])
    assert (whole[: shape[0], : shape[1]] == picture).all()
    assert set(np.unique(whole)) == set(np.unique(picture))


def judged(height, width, box, *, background=0.02, hit=0.95):
    """Tiles scored by an ideal judge: P and map as far as the tile holds the box."""
    tiles = plan(height, width)
    scores, maps = [], []
    for tile in tiles:
        x0, y0, x1, y1 = tile.box
        centre = np.linspace(0, 1, 33)[1::2]
        xs, ys = x0 + centre * (x1 - x0), y0 + centre * (y1 - y0)
        inside = np.outer((ys > box[1]) & (ys < box[3]), (xs > box[0]) & (xs < box[2])).astype(np.float32)
        scores.append(hit if inside.any() else background)
        maps.append(inside * 3 - 0.1)
    return tiles, np.array(scores, np.float32), np.stack(maps).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "box"),
    [
        ((700, 900), (300, 200, 420, 320)),
        ((700, 900), (0, 0, 96, 96)),
        ((700, 900), (820, 620, 900, 700)),
        ((321, 481), (180, 100, 260, 200)),
        ((1100, 1100), (200, 200, 800, 900)),
        ((90, 120), (16, 16, 80, 64)),
    ],
)
def test_a_hole_comes_back_where_it_is(size, box):
    tiles, scores, maps = judged(*size, box)
    heat = merge(tiles, scores, maps, size)
    assert heat.shape == (-(-size[0] // CELL_PX), -(-size[1] // CELL_PX))
    assert 0 <= heat.min() <= heat.max() <= 0.95 + 1e-6
    (region,) = regions(heat, size, threshold=0.7)
    assert region.score == pytest.approx(0.95, abs=0.05)
    assert np.abs(np.subtract(region.box, box)).max() <= 2.5 * CELL_PX
    assert region.box[2] <= size[1]
    assert region.box[3] <= size[0]


def test_two_holes_are_two_regions_surest_first():
    size = (600, 900)
    tiles, scores, maps = judged(*size, (100, 100, 180, 180))
    _, other_scores, other_maps = judged(*size, (700, 400, 800, 500), hit=0.8)
    heat = np.maximum(merge(tiles, scores, maps, size), merge(tiles, other_scores, other_maps, size))
    first, second = regions(heat, size, threshold=0.6)
    assert first.score > second.score
    assert first.box[2] < second.box[0]


def test_an_untouched_picture_has_no_regions():
    tiles, scores, maps = judged(700, 900, (-9, -9, -1, -1))
    assert regions(merge(tiles, scores, maps, (700, 900)), (700, 900), threshold=0.5) == ()


def test_one_tiles_border_does_not_outvote_the_tile_that_sees_the_matter():
    size = (256, 448)
    tiles = plan(*size)
    maps = np.zeros((2, 16, 16), np.float32)
    maps[0, 8, 13:15] = 1  # 208..240 px: 16 px before the border of the first tile, 1 to 3 cells inside the second
    maps[1, 8, 1:3] = 1
    doubtful_second = merge(tiles, np.array([0.9, 0.1], np.float32), maps, size).max()
    doubtful_first = merge(tiles, np.array([0.1, 0.9], np.float32), maps, size).max()
    assert doubtful_first == pytest.approx(doubtful_second, abs=0.15)
    inner = np.zeros((2, 16, 16), np.float32)
    inner[1, 8, 8:10] = 1
    assert merge(tiles, np.array([0.1, 0.9], np.float32), inner, size).max() == pytest.approx(0.9)


def test_a_single_hot_cell_is_noise():
    heat = np.zeros((20, 20), np.float32)
    heat[3, 3] = 0.99
    assert regions(heat, (320, 320), threshold=0.5) == ()


def test_maps_without_anything_positive_are_not_blown_up():
    tiles = plan(256, 256)
    heat = merge(tiles, np.array([0.9], np.float32), np.full((1, 16, 16), -1, np.float32), (256, 256))
    assert heat.max() == 0
