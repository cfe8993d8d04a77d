"""The perceptual hash: imagehash's bits, but for a few at the median, and the same on every machine."""

from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image

from scanner.cache.phash import CANONICAL_PX, HASH_SIDE, perceptual_hash

PICTURES = sorted((Path(__file__).parent / "media").glob("*.jpg"))


def by_imagehash(picture):
    canonical = picture.resize((CANONICAL_PX, CANONICAL_PX), Image.Resampling.BICUBIC, reducing_gap=3.0)
    return int(str(imagehash.phash(canonical, hash_size=HASH_SIDE)), 16)


@pytest.mark.parametrize("size", [None, (640, 480), (97, 331), (1600, 1200)])
def test_it_is_imagehashs_but_for_bits_at_the_median(size):
    differ = []
    for path in PICTURES:
        with Image.open(path) as opened:
            picture = opened.convert("RGB") if size is None else opened.convert("RGB").resize(size)
        differ.append((perceptual_hash(np.asarray(picture)) ^ by_imagehash(picture)).bit_count())
    assert max(differ) <= 8  # the near tier's radius is 31; unrelated pictures differ by 128
    assert sum(differ) / len(differ) <= 2


@pytest.mark.parametrize("size", [(1, 1), (480, 640), (333, 217)])
def test_an_even_picture_has_no_bits_made_of_noise(size):
    codes = {perceptual_hash(np.full((*size, 3), grey, np.uint8)) for grey in (1, 37, 200, 255)}
    assert codes == {1 << 255}  # the mean alone is above the median


def test_half_a_picture_is_as_good_as_the_same_pixels_copied():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    assert perceptual_hash(pixels[:, ::2]) == perceptual_hash(pixels[:, ::2].copy())
