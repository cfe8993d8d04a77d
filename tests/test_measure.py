"""Numbers and report on methods whose answers are known: a judge of roughness, and one of brightness."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from exhibits import SIDE, pairs, seen_set, smooth, square, task

from scanner.training import plots, report
from scanner.training.arms import SMOKE
from scanner.training.measure import deletion, look, measure, numbers_of, put_back
from scanner.training.methods import Method, Seen
from scanner.training.metrics import accuracy, best_threshold
from scanner.training.protocol import Plan, run
from scanner.training.tasks import UnseenSet


class Roughness(Method):
    """Knows the truth: how much a picture differs from its own blur, and where."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def look(self, x):
        detail = (x - nnf.avg_pool2d(x, 5, stride=1, padding=2)).abs().mean(1, keepdim=True)
        grid = nnf.avg_pool2d(detail, 16)[:, 0]
        a_fake = 40 * grid.mean((1, 2))
        return Seen(a_fake - 0.1, torch.full_like(a_fake, 0.1), a_fake, grid)


class Brightness(Method):
    """Has learnt a shortcut and has no map."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def look(self, x):
        score = x[:, 0].mean((1, 2)) - x[:, 2].mean((1, 2))
        return Seen(score, -score, score, None)


@pytest.fixture(scope="module")
def measured():
    return measure(Roughness().eval(), task())


def test_who_knows_the_truth_gets_full_marks(measured):
    for where in ("seen", "unseen"):
        for key in ("accuracy", "auc", "right_real"):
            assert measured.numbers[f"{where}/{key}"] == 1
        assert measured.numbers[f"{where}/eer"] == 0
    assert measured.numbers["seen/right_rough"] == measured.numbers["unseen/right_grainy"] == 1


def test_a_map_that_is_on_the_forgery_says_so(measured):
    assert measured.numbers["seen/iou"] > 0.7
    assert measured.numbers["seen/energy_inside"] > 0.7


def test_forged_pixels_put_back_turn_a_true_verdict_and_not_a_false_one(measured):
    assert measured.numbers["seen/deletion_turned"] == 1
    assert measured.numbers["seen/deletion_agrees"] == 1
    assert deletion(Brightness().eval(), task().seen.test, cut=-9.0) == {"deletion_turned": 0.0}, (
        "all are caught, none turns"
    )


def test_shortcuts_are_found_out(measured):
    assert measured.alarms["untouched"] == measured.alarms["tinted"] == measured.alarms["blurred"] == 0
    assert measured.alarms["noisy"] == 1, "noise is roughness"
    fooled = measure(Brightness().eval(), task())
    assert fooled.alarms["tinted"] >= fooled.alarms["untouched"]
    assert "seen/iou" not in fooled.numbers


def test_the_threshold_is_fixed_on_seen_validation_alone(measured):
    data = task()
    other = replace(data, unseen=UnseenSet(("grainy",), pairs(range(3000, 3004), "grainy", level=1)))
    again = measure(Roughness().eval(), other)
    assert (again.threshold, again.slope, again.intercept) == (measured.threshold, measured.slope, measured.intercept)
    assert again.numbers["unseen/accuracy"] < 1


def test_frames_are_pooled_by_video():
    items = [replace(i, group=f"video{n // 4}", identity="someone") for n, i in enumerate(pairs(range(8)))]
    watched = look(Roughness().eval(), items)
    found = numbers_of(items, watched, 0.0)
    assert {"video_accuracy", "video_auc"} <= set(found)
    assert "video_auc" not in numbers_of(pairs(range(8)), watched, 0.0), "no videos here"


def test_what_is_put_back_is_the_original_and_a_little_more():
    fake, original, mask = np.full((SIDE, SIDE, 3), 9, np.uint8), smooth(1), square(1)
    out = put_back(fake, original, mask, reach_px=9)
    inside = cv2.dilate(mask, np.ones((9, 9), np.uint8)) > 0
    assert (out[inside] == original[inside]).all()
    assert (out[~inside] == 9).all()


# ---------------------------------------------------------------- accuracy and curves


def test_the_best_threshold_is_in_the_middle_of_the_widest_gap():
    assert best_threshold([0, 1, 2], [4, 5]) == 3
    assert best_threshold([0, 1, 5], [4, 6, 7]) in {2.5, 5.5}
    assert accuracy([0, 1, 2], [4, 5], 3) == 1
    assert accuracy([0, 4], [4, 5], 4) == pytest.approx(0.75), "a fake is above the cut, not at it"


def test_no_threshold_is_better_than_the_best():
    rng = np.random.default_rng(0)
    for _ in range(20):
        real, fake = rng.normal(0, 1, 17).round(1), rng.normal(0.7, 1, 23).round(1)
        best = accuracy(real, fake, best_threshold(real, fake))
        assert best == pytest.approx(max(accuracy(real, fake, c) for c in np.arange(-5, 5, 0.05)))


def test_curves_go_from_corner_to_corner():
    curve = plots.roc(np.array([0.0, 1.0]), np.array([1.0, 2.0]))
    assert curve[0] == (0, 0)
    assert curve[-1] == (1, 1)
    assert (0.0, 0.5) in curve


def test_reliability_of_an_honest_probability_is_the_diagonal():
    p = np.repeat([0.05, 0.55], 100)
    is_fake = np.concatenate([np.arange(100) < 5, np.arange(100) < 55])
    assert plots.reliability(p, is_fake) == [(pytest.approx(0.05), 0.05), (pytest.approx(0.55), 0.55)]


def test_a_drawing_names_its_curves_and_escapes_them():
    drawn = plots.svg({"<b>": [(0, 0), (1, 1)]}, title="a & b", x="x", y="y")
    assert "&lt;b&gt;" in drawn
    assert "a &amp; b" in drawn
    assert drawn.count("<polyline") == 1


# ---------------------------------------------------------------- report


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    plan = Plan("inpainting", ("rough",), ("grainy",), ("lae-strong", "forensic-transfer"), 2, scale=SMOKE)
    tiny = replace(plan, scale=replace(SMOKE, pairs=9))
    run(tiny, seen_set(18), folder)
    (folder / "arms" / "forensic-transfer" / "1" / "done").unlink()
    return report.evaluate(folder, task(train=18))


def test_the_report_has_the_table_the_evidence_and_the_pictures(reported):
    html, text = reported.read_text(), (reported.parent / "report.md").read_text()
    for words in ("Seen and unseen", "By class", "Evidence", "False alarms", "Curves", "Hits and misses"):
        assert words in html
        assert f"## {words}" in text
    assert html.count("<svg") == 4
    assert "data:image/jpeg;base64," in html
    assert "http" not in html.replace("http://www.w3.org/2000/svg", "")
    table = next(line for line in text.splitlines() if line.startswith("| lae-strong"))
    assert " ± " in table, "two seeds"


def test_the_report_says_what_is_missing_and_what_was_used(reported):
    text = (reported.parent / "report.md").read_text()
    assert "Not finished, so not here: forensic-transfer 1." in text
    assert "Perceptual loss: off (weight 0), no VGG-16 file was given." in text
    assert "over all arms and seeds: 2 automatic" in text
    assert "against the best peer (forensic-transfer) on unseen families" in text


def test_the_numbers_are_there_for_programs(reported):
    kept = json.loads((reported.parent / "report.json").read_text())
    assert [len(seeds) for seeds in kept.values()] == [2, 1]
    assert 0 <= kept["lae-strong"][0]["unseen/auc"] <= 1
    assert 0 <= kept["lae-strong"][0]["alarms/jpeg 50"] <= 1


def test_nothing_finished_or_another_task_is_no_report(tmp_path, reported):
    with pytest.raises(ValueError, match="not a folder of `laescan train`"):
        report.evaluate(tmp_path, task())
    Plan("inpainting", ("rough",), ("grainy",), ("lae",), 1).keep(tmp_path)
    with pytest.raises(ValueError, match="is finished"):
        report.evaluate(tmp_path, task())
    with pytest.raises(ValueError, match="was trained on inpainting"):
        report.evaluate(reported.parent, replace(task(), task="attributes"))


def test_spread_is_mean_and_deviation_over_seeds():
    assert report.spread([0.5, 0.6, 0.7]) == "60.0 ± 10.0"
    assert report.spread([0.5]) == "50.0"
    assert report.spread([]) == "–"
