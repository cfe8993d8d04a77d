"""What is drawn: in the right place, as strong as the evidence, and nothing hot unless the verdict says manipulated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdicts import HIGH, LOW, scored, still, surveyed

from scanner.contract import Label, Region
from scanner.report import overlay, palette
from scanner.report.overlay import LONG_SIDE_PX, REGION, draw_crop, draw_overlay, draw_region

GREY = np.full((600, 800, 3), 128, np.uint8)


def colourfulness(pixels):
    """(H, W): how far each pixel is from grey."""
    return pixels.max(axis=2).astype(int) - pixels.min(axis=2)


def without_chips(pixels, verdict):
    """The inside of the first face's box, where no chip and no legend lies."""
    x0, y0, x1, y1 = (int(v) for v in verdict.faces[0].box)
    return pixels[y0 + 40 : y1 - 4, x0 + 4 : x1 - 4]


@pytest.mark.parametrize("raw", [LOW, 0.5])
def test_nothing_hot_is_drawn_unless_the_verdict_is_manipulated(raw):
    """Even where the map itself has a strong peak."""
    verdict = still(scored(raw, peak_at=(8, 8)))
    assert verdict.label is not Label.MANIPULATED
    assert colourfulness(without_chips(draw_overlay(GREY, verdict, 0), verdict)).max() == 0


def test_an_authentic_face_gets_a_thin_box_and_its_inside_is_untouched():
    verdict = still(scored(LOW, peak_at=(8, 8)))
    assert (without_chips(draw_overlay(GREY, verdict, 0), verdict) == 128).all()
    assert (draw_overlay(GREY, verdict, 0) != 128).any()


def test_an_inconclusive_face_is_hatched_light_and_dark():
    verdict = still(scored(0.5, peak_at=(8, 8)))
    inside = without_chips(draw_overlay(GREY, verdict, 0), verdict)
    assert inside.max() > 180
    assert inside.min() < 90


@pytest.mark.parametrize("cell", [(4, 4), (11, 6), (8, 13)])
def test_the_map_lies_where_crop_to_frame_says(cell):
    verdict = still(scored(HIGH, peak_at=cell))
    heat = colourfulness(draw_overlay(GREY, verdict, 0)) * (np.indices((600, 800))[0] < 480)  # above the legend
    x, y = 100 + 200 * (cell[1] + 0.5) / 16, 100 + 200 * (cell[0] + 0.5) / 16
    rows, columns = np.nonzero(heat > 60)
    inside = (rows > 105) & (rows < 300)  # below the chip
    assert (columns[inside].mean(), rows[inside].mean()) == (pytest.approx(x, abs=4), pytest.approx(y, abs=4))


def test_the_map_follows_a_rotated_crop():
    face = scored(HIGH, peak_at=(2, 8))
    face.crop_to_frame[:] = [[0, -200, 500], [200, 0, 200]]  # a quarter turn: down the crop is left in the frame
    verdict = still(face)
    heat = colourfulness(draw_overlay(GREY, verdict, 0)) > 60
    rows, columns = np.nonzero(heat[:, 360:700])  # beside the chip
    assert (columns.mean() + 360, rows.mean()) == (
        pytest.approx(500 - 200 * 2.5 / 16, abs=4),
        pytest.approx(200 + 200 * 8.5 / 16, abs=4),
    )


def test_faint_evidence_stays_faint_although_its_map_is_scaled_to_its_own_peak():
    strong, faint = scored(HIGH, peak_at=(8, 8)), scored(HIGH, peak_at=(8, 8))
    faint.attention[:] *= 0.01
    heats = []
    for face in (strong, faint):
        verdict = still(face)
        assert max(verdict.faces[0].attention.grid) == 255
        heats.append(colourfulness(without_chips(draw_overlay(GREY, verdict, 0), verdict)).max())
    assert heats[0] > 100
    assert heats[1] < 10


def blue(pixels):
    """(H, W): where the colour of regions is."""
    return (np.abs(pixels.astype(int) - REGION) < 16).all(axis=2)  # chips let a little of the picture through


def test_a_region_gets_blue_corners_and_its_inside_is_untouched():
    verdict = still(survey=surveyed((480, 304, 688, 416)))
    x0, y0, x1, y1 = (int(v) for v in verdict.regions[0].box)
    drawn = draw_overlay(GREY, verdict, 0)
    for y, x in ((y0, x0), (y0, x1), (y1, x0), (y1, x1)):
        assert blue(drawn[y - 3 : y + 4, x - 3 : x + 4]).any()
    assert (drawn[y0 + 8 : y1 - 8, x0 + 8 : x1 - 8] == 128).all()
    assert (drawn[y0 : y1 : y1 - y0 - 1, (x0 + x1) // 2] == 128).all(), "corners only: no outline is known"
    assert blue(drawn[y0 - 40 : y0 - 6, x0:x1]).any(), "the chip with its number stands above"
    assert blue(drawn[560:, :200]).any(), "the legend tells what the corners are"


def test_without_a_region_nothing_more_is_drawn():
    for faces in ([], [scored(LOW)], [scored(HIGH, peak_at=(8, 8))]):
        surveyed_only = draw_overlay(GREY, still(*faces, survey=surveyed()), 0)
        assert np.array_equal(surveyed_only, draw_overlay(GREY, still(*faces), 0))


def test_a_region_makes_no_face_hot():
    verdict = still(scored(0.5, peak_at=(8, 8)), survey=surveyed((480, 304, 688, 416)))
    assert verdict.label is Label.MANIPULATED
    assert colourfulness(without_chips(draw_overlay(GREY, verdict, 0), verdict)).max() == 0


def test_letters_can_be_read_on_a_phone_and_leave_a_crowd_its_faces():
    phone_px, portrait = 307, [(190.0, 130.0, 450.0, 500.0)]
    assert overlay._letter_px((640, 640), portrait) * phone_px / 640 > 8
    assert overlay._letter_px((1200, 600), [*portrait, (0.0, 0.0, 80.0, 90.0)]) == pytest.approx(18)


def test_face_and_region_share_one_legend():
    verdict = still(scored(HIGH, peak_at=(8, 8)), survey=surveyed((480, 304, 688, 416)))
    alone = draw_overlay(GREY, still(scored(HIGH, peak_at=(8, 8))), 0)
    both = draw_overlay(GREY, verdict, 0)
    assert not blue(alone).any()
    assert blue(both[480:, :300]).any()
    assert (colourfulness(both[480:, :300]) > 60).sum() > 1000, "the scale of the maps is still there"


@pytest.mark.parametrize("box", [(0, 0, 16, 16), (0, 0, 800, 600), (784, 592, 800, 600), (300, 200, 620, 216)])
def test_any_region_can_be_cut_out_with_what_is_around_it(box):
    frame = np.full((600, 800, 3), 128, np.uint8)
    part = draw_region(frame, Region(tuple(map(float, box)), 0.99))
    assert max(part.shape) == 240
    assert blue(part).any()


def test_skin_is_greyed_so_that_it_is_not_taken_for_heat():
    skin = np.full((600, 800, 3), (224, 172, 140), np.uint8)
    drawn = draw_overlay(skin, still(scored(HIGH, peak_at=(8, 8))), 0)
    assert colourfulness(drawn)[400, 700] < 20 < colourfulness(skin)[400, 700]


def test_only_the_faces_of_the_frame_are_drawn():
    verdict = still(scored(HIGH, peak_at=(8, 8)))
    assert (draw_overlay(GREY, verdict, 1) == 128).all()


def test_a_bystander_in_a_manipulated_picture_stays_clean():
    forged = scored(HIGH, peak_at=(8, 8))
    clean = scored(LOW, track=1, peak_at=(8, 8))
    clean.crop_to_frame[0, 2] = 500
    drawn = draw_overlay(GREY, still(forged, clean), 0)
    assert colourfulness(drawn[150:280, 520:690]).max() == 0
    assert colourfulness(drawn[150:280, 120:290]).max() > 60


@pytest.mark.parametrize(
    ("size", "long_side"), [((100, 80), LONG_SIDE_PX[0]), ((700, 900), 900), ((3000, 4000), LONG_SIDE_PX[1])]
)
def test_the_picture_is_scaled_to_a_readable_size_with_its_shape_kept(size, long_side):
    drawn = draw_overlay(np.zeros((*size, 3), np.uint8), still(scored(HIGH)), 0)
    assert max(drawn.shape) == long_side
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(size[0] / size[1], rel=0.01)
    assert drawn.dtype == np.uint8


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.floats(-3000, 3000), min_size=6, max_size=6),
    st.lists(st.floats(-500, 1500), min_size=2, max_size=2),
    st.sampled_from([(1, 1), (2, 400), (90, 120)]),
    st.floats(0, 1),
)
def test_no_geometry_breaks_the_drawing(matrix, corner, size, quality):
    face = scored(HIGH, peak_at=(8, 8), quality=quality, side_px=abs(corner[1]))
    face.crop_to_frame[:] = np.reshape(matrix, (2, 3))
    assert draw_overlay(np.zeros((*size, 3), np.uint8), still(face), 0).ndim == 3
    plain, marked = draw_crop(np.zeros((*size, 3), np.uint8), still(face).faces[0], still(face))
    assert plain.shape == marked.shape == (240, 240, 3)


def test_a_crop_shows_what_the_model_saw_with_and_without_its_map():
    frame = np.zeros((600, 800, 3), np.uint8)
    frame[100:300, 100:200] = 255  # the left half of the crop
    verdict = still(scored(HIGH, peak_at=(8, 8)))
    plain, marked = draw_crop(frame, verdict.faces[0], verdict)
    assert plain[5:-5, 5:115].min() > 250
    assert plain[5:-5, 125:-5].max() < 5
    assert colourfulness(plain).max() == 0 < colourfulness(marked).max()
    clean = still(scored(LOW, peak_at=(8, 8)))
    assert np.array_equal(*draw_crop(frame, clean.faces[0], clean))


def test_the_colour_map_rises_evenly_in_lightness():
    """Read in grey, or by the colour-blind, more is still more."""
    steps = np.diff(palette.ramp()[::8] @ np.array([0.2126, 0.7152, 0.0722]))
    assert (steps > 1).all()
    assert steps.max() < 3 * steps.mean()
    assert np.abs(np.diff(palette.ramp().astype(int), axis=0)).max() <= 8  # no colour jumps
    assert len(palette.stops(7)) == 7
