"""Flips, shortcuts, deletion: counted on an encoder whose reasons are known, because they are built in."""

import numpy as np
import pytest
import torch
from torch import nn

from scanner.contract import Label
from scanner.detection.lae import Latent
from scanner.training import robustness
from scanner.training.robustness import Case, deletion, flips, labels, shortcuts
from scanner.verdict import Calibration

CALIBRATION = Calibration(slope=10.0, intercept=-5.0, authentic=0.2, manipulated=0.8)  # 0.5 raw is P = 0.5


class Redness(nn.Module):
    """Calls red what is red: raw score and map are the share of pure red in each of 16 x 16 cells."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x):
        red = ((x[:, 0] - x[:, 1]) > 0.5).float()
        cells = torch.nn.functional.adaptive_avg_pool2d(red[:, None], 16)[:, 0]
        score = (cells.flatten(1).amax(1)).clamp(0, 1)
        return Latent(score, torch.zeros_like(score), score, cells, cells)


def case(*, red=0, family="swap"):
    grey = np.full((256, 256, 3), 90, np.uint8)
    canvas, mask = grey.copy(), np.zeros((256, 256), np.float32)
    mask[64 : 64 + red, 64 : 64 + red] = 1
    canvas[mask > 0] = (250, 0, 0)
    return Case(canvas, family if red else "real", grey, mask)


def test_labels_follow_the_thresholds():
    assert labels(np.array([0.0, 0.5, 1.0]), CALIBRATION) == [
        Label.AUTHENTIC,
        Label.INCONCLUSIVE,
        Label.MANIPULATED,
    ]


def test_flips_are_told_from_doubts_and_only_confident_labels_count():
    treatments = {
        "nothing": lambda p: p,
        "grey": lambda p: np.repeat(p.mean(2, keepdims=True), 3, 2).astype(np.uint8),
        "stripes": lambda p: np.where((np.arange(256) % 2)[:, None, None] == 0, p, 90).astype(np.uint8),
    }
    rows = flips(Redness(), CALIBRATION, [case(red=64), case(), case()], treatments, lambda p: p)
    assert (rows["n"], rows["confident"]) == (3, 3)
    assert rows["treatments"]["nothing"] == {"turned": 0.0, "doubted": 0.0}
    assert rows["treatments"]["grey"] == {"turned": 0.3333, "doubted": 0.0}
    assert rows["treatments"]["stripes"] == {"turned": 0.0, "doubted": 0.3333}
    assert (rows["turned"], rows["doubted"]) == (0.1111, 0.1111)


def test_nothing_confident_nothing_flips():
    never = Calibration(slope=1e-6, intercept=0.0, authentic=0.1, manipulated=0.9)
    rows = flips(Redness(), never, [case()], {"nothing": lambda p: p}, lambda p: p)
    assert (rows["confident"], rows["turned"], rows["treatments"]) == (0, None, {})


def test_a_shortcut_is_caught(monkeypatch):
    monkeypatch.setitem(robustness.SHORTCUTS, "painted red", lambda p: np.full_like(p, (250, 0, 0)))
    rows = shortcuts(Redness(), CALIBRATION, [case(), case()], lambda p: p)
    assert rows["painted red"]["share"] == 1.0
    assert {name for name, row in rows.items() if row["share"]} == {"painted red"}
    assert rows["grainy"]["high"] == pytest.approx(0.66, abs=0.01)


@pytest.mark.parametrize("name", robustness.SHORTCUTS)
def test_a_shortcut_changes_the_picture_but_not_what_it_shows(name):
    picture = np.random.default_rng(0).integers(60, 200, (256, 256, 3)).astype(np.uint8)
    treated = robustness.SHORTCUTS[name](picture)
    assert treated.shape == picture.shape
    assert treated.dtype == np.uint8
    assert 0 < np.abs(treated.astype(float) - picture).mean() < 60


def test_putting_the_forged_pixels_back_turns_the_verdict():
    rows = deletion(Redness(), CALIBRATION, [case(red=64), case(red=96)], lambda p: p, np.random.default_rng(0))
    assert (rows["n"], rows["turned"], rows["fell_whole"]) == (2, 1.0, 1.0)


def test_where_the_map_points_more_evidence_falls():
    faint = case(red=64)
    faint.canvas[80:128, 64:128] = np.where(np.arange(64)[None, :, None] % 4 == 0, (250, 0, 0), (120, 90, 90))
    rows = deletion(Redness(), CALIBRATION, [faint], lambda p: p, np.random.default_rng(0))
    assert rows["fell_hot"] > rows["fell_elsewhere"] >= 0


def test_without_a_forgery_found_there_is_nothing_to_delete():
    rows = deletion(Redness(), CALIBRATION, [case()], lambda p: p, np.random.default_rng(0))
    assert rows == {"n": 0, "turned": None, "fell_hot": None, "fell_elsewhere": None}
