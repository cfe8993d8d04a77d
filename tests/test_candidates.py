"""The folder of candidates: what is written is read back, what is unsafe or does not fit is refused by name."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image

from scanner.training import candidates
from scanner.training.candidates import CandidatesError, Source
from scanner.training.data import Sample

SIZE = (48, 64)


def picture(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*SIZE, 3), dtype=np.uint8)


def box(y0=10, y1=30, x0=12, x1=40):
    mask = np.zeros(SIZE, np.float32)
    mask[y0:y1, x0:x1] = 1
    return mask


@pytest.fixture
def folder(tmp_path):
    samples = [Sample(picture(i), box(), "swap", f"sitter {i}") for i in range(3)]
    maps = [np.linspace(-1, 3, 256).reshape(16, 16)] * 3
    candidates.write_candidates(tmp_path, samples, maps, [picture(9), None, picture(9)])
    return tmp_path


def test_candidates_are_read_as_they_were_written(folder):
    first, second, _ = candidates.read_candidates(folder)
    assert (first.name, first.family, first.identity) == ("0001", "swap", "sitter 0")
    assert (first.original, second.original) == ("originals/0001.png", None)
    assert (candidates.read_picture(folder / first.picture) == picture(0)).all()
    attention = np.asarray(Image.open(folder / first.attention))
    assert (attention.shape, attention.dtype, attention.min(), attention.max()) == ((16, 16), np.uint8, 0, 255)


def test_masks_come_back_with_their_picture_family_and_source(folder):
    candidates.write_mask(folder, "0002", box())
    candidates.write_mask(folder, "0003", box() > 0, Source.HUMAN)
    second, third = candidates.read_masks(folder)
    assert [(m.name, m.source) for m in (second, third)] == [("0002", "automatic"), ("0003", "human")]
    assert (second.sample.crop == picture(1)).all()
    assert (second.sample.mask == box()).all()
    assert second.sample.mask.dtype == np.float32
    assert (third.sample.family, third.sample.identity) == ("swap", "sitter 2")


def test_a_mask_is_an_8_bit_grey_png_with_255_for_forged(folder):
    candidates.write_mask(folder, "0001", box())
    with Image.open(folder / "masks" / "0001.png") as mask:
        assert (mask.format, mask.mode, mask.size) == ("PNG", "L", SIZE[::-1])
        assert (np.asarray(mask) == 255 * box()).all()
    assert not list(folder.rglob("*.tmp"))


def test_a_mask_put_there_by_hand_counts_as_human(folder):
    (folder / "masks").mkdir()
    cv2.imwrite(str(folder / "masks" / "0001.png"), 255 * box())
    assert [(m.name, m.source) for m in candidates.read_masks(folder)] == [("0001", Source.HUMAN)]


def test_an_empty_mask_is_no_mask(folder):
    candidates.write_mask(folder, "0001", box())
    candidates.write_mask(folder, "0001", np.zeros(SIZE))
    assert candidates.read_masks(folder) == []
    assert candidates.read_sources(folder) == {}


def test_a_skipped_candidate_teaches_nothing_even_with_a_mask(folder):
    candidates.write_mask(folder, "0001", box())
    candidates.note_source(folder, "0001", Source.SKIPPED)
    assert candidates.read_masks(folder) == []


def test_a_mask_of_another_size_is_refused_by_name(folder):
    candidates.write_mask(folder, "0001", box()[:-1])
    with pytest.raises(CandidatesError, match=r"0001\.png is not as large as its picture, 64 x 48 px"):
        candidates.read_masks(folder)


def test_a_broken_mask_is_refused_by_name(folder):
    candidates.write_mask(folder, "0001", np.random.default_rng(0).random(SIZE))
    path = folder / "masks" / "0001.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(CandidatesError, match=r"0001\.png is broken"):
        candidates.read_masks(folder)


@pytest.mark.parametrize("name", ["../0001", "a/b", ".hidden", "", "a b", "0001\n", "é", "x" * 200])
def test_names_that_are_not_plain_are_refused(folder, name):
    line = {"name": name, "picture": "pictures/0001.png"}
    (folder / "candidates.json").write_text(json.dumps([line]))
    with pytest.raises(CandidatesError, match="is not plain"):
        candidates.read_candidates(folder)


def test_a_name_stands_once(folder):
    line = {"name": "one", "picture": "pictures/0001.png"}
    (folder / "candidates.json").write_text(json.dumps([line, line]))
    with pytest.raises(CandidatesError, match="there twice"):
        candidates.read_candidates(folder)


@pytest.mark.parametrize("field", ["picture", "attention", "original"])
@pytest.mark.parametrize(
    "file",
    ["../secret.png", "{outside}/secret.png", "pictures/../../secret.png", "link.png", "candidates.json", "no.png"],
)
def test_files_outside_the_folder_are_refused(folder, tmp_path_factory, field, file):
    outside = tmp_path_factory.mktemp("outside")
    (folder.parent / "secret.png").write_bytes(b"secret")
    (outside / "secret.png").write_bytes(b"secret")
    (folder / "link.png").symlink_to(outside / "secret.png")
    line = {"name": "one", "picture": "pictures/0001.png", field: file.format(outside=outside)}
    (folder / "candidates.json").write_text(json.dumps([line]))
    with pytest.raises(CandidatesError, match="is not a PNG file in this folder"):
        candidates.read_candidates(folder)


@pytest.mark.parametrize(("text", "words"), [(None, "cannot be read"), ("[{", "truncated"), ('[{"name": 1}]', "name")])
def test_a_folder_that_is_none_says_why(tmp_path, text, words):
    if text is not None:
        (tmp_path / "candidates.json").write_text(text)
    with pytest.raises(CandidatesError, match=words):
        candidates.read_candidates(tmp_path)


def test_notes_that_say_something_else_are_refused(folder):
    (folder / "masks").mkdir()
    (folder / "masks" / "source.json").write_text('{"0001": "guess"}')
    with pytest.raises(CandidatesError, match="guess"):
        candidates.read_masks(folder)


# ---------------------------------------------------------------- automatic masks


def grey(level=100, size=(100, 120)):
    return np.full((*size, 3), level, np.uint8)


def test_the_difference_is_the_forged_part_and_nothing_else():
    fake = grey()
    fake[20:60, 30:80] = 140
    mask = candidates.difference_mask(fake, grey())
    assert (mask.shape, mask.dtype, set(np.unique(mask))) == ((100, 120), np.float32, {0, 1})
    assert mask[20:60, 30:80].min() == 1
    assert mask.sum() == 40 * 50


@pytest.mark.parametrize(("change", "counts"), [(25, False), (26, True), (-25, False), (-26, True)])
def test_a_tenth_of_the_scale_is_noise_and_more_is_forged(change, counts):
    fake = grey()
    fake[20:60, 30:80] = 100 + change
    assert candidates.difference_mask(fake, grey()).any() == counts


def test_gaps_are_closed_and_holes_filled():
    fake = grey()
    fake[20:60, 30:80] = 200
    fake[20:60, 50:54] = 100  # a gap narrower than 7 px
    fake[30:45, 60:75] = 100  # a hole that closing leaves open
    assert candidates.difference_mask(fake, grey()).sum() == 40 * 50


def test_specks_up_to_half_a_percent_are_dropped():
    fake = grey()
    fake[5:11, 5:15] = 200  # 60 px = 0.5 %
    fake[50:57, 50:60] = 200  # 70 px
    mask = candidates.difference_mask(fake, grey())
    assert (mask[:20].any(), mask[50:57, 50:60].all()) == (False, True)


def test_an_untouched_picture_has_no_mask():
    assert not candidates.difference_mask(grey(), grey()).any()
