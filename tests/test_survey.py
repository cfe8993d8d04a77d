"""What a model said of tiles becomes parts of the picture, by the model's own calibration and nothing else."""

import msgspec
import numpy as np
import pytest
from verdicts import REGION_CALIBRATION, surveyed

from scanner.detection import tiles
from scanner.detection.model import SeenTile
from scanner.errors import Internal

HOLE = (500, 300, 700, 420)


def test_a_hole_becomes_a_region_with_the_calibrated_score():
    (region,) = surveyed(HOLE, raw=3.5).regions(threshold=0.9)
    assert region.score == pytest.approx(1 / (1 + np.exp(-3.5)), abs=1e-4)
    assert np.abs(np.subtract(region.box, HOLE)).max() <= 2 * tiles.CELL_PX


def test_the_threshold_is_the_callers():
    survey = surveyed(HOLE, raw=2.0)  # P = 0.88
    assert survey.regions(threshold=0.9) == ()
    assert len(survey.regions(threshold=0.85)) == 1


def test_no_tile_counts_more_than_the_headroom_allows():
    capped = REGION_CALIBRATION.log_odds(1000.0)
    assert surveyed(HOLE, raw=1000.0).heat().max() == pytest.approx(1 / (1 + np.exp(-capped)), abs=1e-5)


@pytest.mark.parametrize("bad", [SeenTile(np.nan, np.zeros((16, 16))), SeenTile(0.0, np.full((16, 16), np.inf))])
def test_what_is_not_a_number_is_a_bug_and_no_region(bad):
    survey = surveyed(HOLE)
    survey.seen[3] = bad
    with pytest.raises(Internal):
        survey.regions(threshold=0.9)


def test_it_knows_how_large_the_picture_was_looked_at():
    assert surveyed().shrunk_to == 1
    assert surveyed(size=(6000, 8000)).shrunk_to < 1


def test_another_calibration_reads_the_same_tiles_otherwise():
    doubtful = msgspec.structs.replace(REGION_CALIBRATION, slope=0.1)
    assert surveyed(HOLE, calibration=doubtful).regions(threshold=0.95) == ()
