"""Pooling and labels: what must hold for every set of scores, and the cases that a person would look at first."""

import math
import random
import subprocess
import sys
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from verdicts import (
    CALIBRATION,
    HIGH,
    LOW,
    MODEL,
    PICTURE,
    REGION_CALIBRATION,
    VIDEO,
    film,
    scored,
    still,
    surveyed,
    talking_head,
)

from scanner.contract import Label, Region, Verdict
from scanner.errors import Internal
from scanner.verdict import Calibration, FrameInfo, agree_strongly, judge
from scanner.wording import clock, label_of, moment, number, part, place

RAWS = st.floats(-50, 50)
CROWDS = st.lists(
    st.builds(scored, RAWS, st.integers(0, 15), st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=40
)
fast = settings(max_examples=60, deadline=None)


# ---------------------------------------------------------------- what holds for every set of scores


@fast
@given(CROWDS)
def test_the_score_is_a_probability_and_the_label_follows_from_it_alone(faces):
    verdict = film(faces)
    if verdict.score is None:
        assert verdict.label is Label.INCONCLUSIVE
        return
    assert 0 < verdict.score < 1
    assert (verdict.label is Label.MANIPULATED) == (verdict.score >= CALIBRATION.manipulated)
    assert (verdict.label is Label.AUTHENTIC) == (verdict.score <= CALIBRATION.authentic)
    assert verdict.reason.endswith(".")


@fast
@given(CROWDS, st.randoms(use_true_random=False))
def test_the_order_of_the_faces_changes_nothing(faces, shuffler):
    mixed = list(faces)
    shuffler.shuffle(mixed)
    assert msgspec.json.encode(film(mixed)) == msgspec.json.encode(film(faces))


@fast
@given(CROWDS, st.data(), st.floats(0, 20))
def test_more_evidence_in_any_face_never_lowers_the_score(faces, data, more):
    at = data.draw(st.integers(0, len(faces) - 1))
    raised = [*faces[:at], replace(faces[at], raw=faces[at].raw + more), *faces[at + 1 :]]
    before, after = film(faces).score, film(raised).score
    assert (before is None and after is None) or after >= before - 1e-12


@fast
@given(CROWDS)
def test_the_pooled_score_lies_between_the_lowest_and_the_highest_face(faces):
    verdict = film(faces, frame_count=16)
    scores = [face.score for face in verdict.faces if face.score is not None]
    if len({face.frame for face in verdict.faces if face.score is not None}) == 1:
        scores += [CALIBRATION.authentic, CALIBRATION.manipulated]  # too thin: held inside the band
    assert not scores or min(scores) - 1e-9 <= verdict.score <= max(scores) + 1e-9


@fast
@given(
    st.lists(st.floats(-20, -2.5), min_size=8, max_size=16),
    st.data(),
    st.floats(-1e4, 1e4),
    st.booleans(),
    st.booleans(),
)
def test_one_wild_frame_never_flips_a_verdict(raws, data, wild, own_track, forged):
    """Also when the tracker loses the face in that frame, or in every frame."""
    raws = [-raw if forged else raw for raw in raws]
    at = data.draw(st.integers(0, len(raws) - 1))
    raws[at] = wild
    faces = talking_head(raws)
    if own_track:
        faces[at] = replace(faces[at], track=7)
    opposite = Label.AUTHENTIC if forged else Label.MANIPULATED
    assert film(faces, len(raws)).label is not opposite
    assert film([replace(face, track=face.frame) for face in faces], len(raws)).label is not opposite


@fast
@given(RAWS, st.lists(st.floats(-50, 50), min_size=1, max_size=31))
def test_bystanders_never_make_a_picture_worse_than_its_worst_face(raw, others):
    everyone = [scored(r, track=i) for i, r in enumerate([raw, *others])]
    verdict = still(*everyone)
    assert verdict.score <= max(face.score for face in verdict.faces) + 1e-12


def test_each_authentic_bystander_asks_for_more_evidence_from_the_one_forged_face():
    scores = [still(scored(3.0), *(scored(LOW, track=i + 1) for i in range(n))).score for n in range(32)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(1 / (1 + math.exp(-3)))


def test_a_crowd_raises_no_more_false_alarms_than_one_face():
    """Log-odds of authentic faces normal with mean -s*s/2 and deviation s: calibrated, their odds average 1."""
    dice, s, alarms = random.Random(7), 1.5, {1: 0, 20: 0}
    for crowd in alarms:
        for _ in range(1500):
            faces = [scored(dice.gauss(-s * s / 2, s), track=i) for i in range(crowd)]
            alarms[crowd] += still(*faces).label is Label.MANIPULATED
    assert alarms[20] <= alarms[1]
    assert alarms[1] / 1500 < 0.25  # Markov's bound at odds of 4


# ---------------------------------------------------------------- the cases a person would look at first


def test_one_face_in_a_picture_gets_its_calibrated_score():
    calibration = Calibration(slope=6.0, intercept=-0.5, authentic=0.2, manipulated=0.9)
    verdict = judge(
        [scored(0.3)],
        [FrameInfo(0, None, 8, 6)],
        media=PICTURE,
        model=MODEL,
        calibration=calibration,
        timings_s={"a": 1.0},
    )
    assert verdict.score == pytest.approx(1 / (1 + math.exp(-(6 * 0.3 - 0.5))))
    assert verdict.faces[0].score == verdict.frames[0].score == pytest.approx(verdict.score)
    assert verdict.thresholds == calibration.thresholds
    assert (verdict.media, verdict.model, verdict.timings_s, verdict.worst_span) == (PICTURE, MODEL, {"a": 1.0}, None)


def test_no_face_is_a_label_with_a_reason_and_no_score():
    verdict = still()
    assert (verdict.label, verdict.score) == (Label.NO_FACE, None)
    assert verdict.reason == "No face of 40 px or more was found in the picture."
    assert "16 frames of the video" in film([], min_face_px=60).reason
    assert "60 px" in film([], min_face_px=60).reason


def test_a_face_too_poor_to_judge_gets_no_number_anywhere():
    verdict = still(scored(HIGH, quality=0.1, warnings=("blurred",)))
    assert (verdict.label, verdict.score, verdict.frames[0].score) == (Label.INCONCLUSIVE, None, None)
    assert (verdict.faces[0].score, verdict.faces[0].attention) == (None, None)
    assert verdict.reason == "A face was found, but too poor to judge (blurred). Look for a larger or sharper copy."


def test_a_poor_face_does_not_speak_for_the_others():
    verdict = still(scored(LOW), scored(HIGH, track=1, quality=0.05))
    assert verdict.label is Label.AUTHENTIC
    assert verdict.warnings == ("1 of 2 faces found were too poor to judge.",)


def test_a_person_forged_in_a_few_frames_of_a_long_video_is_found_with_its_span():
    raws = [LOW] * 16
    raws[6:11] = [HIGH] * 5
    verdict = film(talking_head(raws) + talking_head([LOW] * 16, track=1))
    assert verdict.label is Label.MANIPULATED
    assert (verdict.worst_span.start_s, verdict.worst_span.end_s) == (12.0, 20.0)
    assert "face 1 of 2" in verdict.reason
    assert "from 0:12 to 0:20" in verdict.reason


def test_a_video_forged_throughout_has_all_of_it_as_its_span():
    verdict = film(talking_head([HIGH] * 16))
    assert (verdict.label, verdict.worst_span.start_s, verdict.worst_span.end_s) == (Label.MANIPULATED, 0.0, 30.0)


def test_an_authentic_video_has_no_worst_span():
    assert film(talking_head([LOW] * 16)).worst_span is None


def test_a_passer_by_seen_once_cannot_make_a_video_manipulated():
    assert film([*talking_head([LOW] * 15), scored(50.0, frame=15, track=9)]).label is Label.AUTHENTIC


def test_one_frame_with_a_face_is_too_little_for_a_video():
    verdict = film([scored(HIGH, frame=3)])
    assert verdict.label is film([scored(LOW, frame=3)]).label is Label.INCONCLUSIVE
    assert "A face could be judged in only 1 of 16 frames." in verdict.warnings


def test_every_shot_of_a_montage_counts_although_no_track_is_longer_than_a_frame():
    assert film([scored(HIGH, frame=i, track=i) for i in range(16)]).label is Label.MANIPULATED
    assert film([scored(LOW, frame=i, track=i) for i in range(16)]).label is Label.AUTHENTIC


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_a_number_is_an_error_and_never_a_verdict(bad):
    with pytest.raises(Internal, match="laescan doctor"):
        still(scored(LOW), scored(bad, track=1))


@pytest.mark.parametrize(
    ("slope", "intercept", "authentic", "manipulated"),
    [
        (0, 0, 0.2, 0.8),
        (-1, 0, 0.2, 0.8),
        (math.nan, 0, 0.2, 0.8),
        (1, math.inf, 0.2, 0.8),
        (1, 0, 0.8, 0.2),
        (1, 0, 0.0, 0.8),
        (1, 0, 0.2, 1.0),
    ],
)
def test_a_senseless_calibration_is_refused(slope, intercept, authentic, manipulated):
    with pytest.raises(ValueError, match="got"):
        Calibration(slope, intercept, authentic, manipulated)


def test_a_verdict_survives_the_wire():
    verdict = film(talking_head([HIGH] * 8), 8)
    assert msgspec.json.decode(msgspec.json.encode(verdict), type=Verdict) == verdict


def test_judging_needs_no_torch():
    code = "import sys, scanner.verdict; sys.exit(any(m in sys.modules for m in ('torch', 'cv2', 'PIL', 'av')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# ---------------------------------------------------------------- early exit


def test_early_exit_when_eight_frames_agree_and_not_before():
    assert agree_strongly(talking_head([HIGH] * 8), frame_count=8, calibration=CALIBRATION)
    assert agree_strongly(talking_head([LOW] * 8), frame_count=8, calibration=CALIBRATION)
    assert not agree_strongly(talking_head([HIGH] * 7), frame_count=7, calibration=CALIBRATION)
    assert not agree_strongly(talking_head([LOW] * 7 + [0.0]), frame_count=8, calibration=CALIBRATION)
    assert not agree_strongly(talking_head([LOW] * 5), frame_count=8, calibration=CALIBRATION)
    assert not agree_strongly([], frame_count=8, calibration=CALIBRATION)


@fast
@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8), st.lists(st.floats(-50, 50), min_size=8, max_size=8))
def test_what_early_exit_calls_manipulated_no_later_frame_clears(early, late):
    faces = talking_head(early)
    if agree_strongly(faces, frame_count=8, calibration=CALIBRATION) and film(faces, 8).label is Label.MANIPULATED:
        assert film(faces + talking_head(late, first=8)).label is not Label.AUTHENTIC


@fast
@given(st.lists(st.floats(-10, 10), min_size=8, max_size=8), st.integers(0, 7), st.floats(-50, 50))
def test_what_early_exit_calls_authentic_no_frame_between_would_change(early, wild, raw):
    edge = (math.log(CALIBRATION.authentic / (1 - CALIBRATION.authentic)) - CALIBRATION.intercept) / CALIBRATION.slope
    seen = talking_head([edge - abs(one) - 1e-6 for one in early])
    assert agree_strongly(seen, frame_count=8, calibration=CALIBRATION)
    assert film(seen, 8).label is Label.AUTHENTIC
    between = [replace(face, frame=2 * face.frame + 1) for face in seen]
    between[wild] = replace(between[wild], raw=raw)
    assert film([replace(face, frame=2 * face.frame) for face in seen] + between).label is Label.AUTHENTIC


def test_one_face_that_does_not_look_authentic_asks_for_the_other_frames():
    assert not agree_strongly(talking_head([LOW] * 7 + [0.0]), frame_count=8, calibration=CALIBRATION)
    passer_by = scored(0.0, frame=3, track=1)
    assert not agree_strongly([*talking_head([LOW] * 8), passer_by], frame_count=8, calibration=CALIBRATION)


# ---------------------------------------------------------------- attention, words, warnings


def test_the_attention_map_keeps_its_peak_and_drops_what_speaks_against():
    face = scored(1.0)
    face.attention[:] = -3.0
    face.attention[11, 7] = 0.02
    kept = still(face).faces[0].attention
    assert (kept.size, max(kept.grid), kept.grid.index(255)) == (16, 255, 11 * 16 + 7)
    assert sum(kept.grid) == 255
    assert kept.peak == pytest.approx(0.02)
    assert kept.crop_to_frame == (200, 0, 100, 0, 200, 100)
    assert part(kept) == "around the mouth"


def test_an_empty_attention_map_is_all_zero():
    face = scored(LOW)
    face.attention[:] = -1.0
    kept = still(face).faces[0].attention
    assert (kept.peak, set(kept.grid), part(kept)) == (0.0, {0}, None)


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ((6, 5), "around the eyes"),
        ((3, 8), "on the forehead"),
        ((13, 8), "on the chin"),
        ((8, 8), "around the nose"),
        ((9, 3), "on the cheeks"),
        ((15, 0), "at the outline of the face"),
    ],
)
def test_the_reason_names_the_part_of_the_face(cell, words):
    assert f"the face, strongest {words} (score" in still(scored(HIGH, peak_at=cell)).reason


def test_every_reason_is_modest_and_says_how_sure():
    forged, clean, unclear = still(scored(HIGH)), still(scored(LOW)), still(scored(0.5))
    assert forged.reason.startswith("Very strong evidence of manipulation in the face")
    assert forged.reason.endswith("(score 0.98; 0.80 or more counts as manipulated). This is evidence, not proof.")
    assert still(scored(1.5)).reason.startswith("Strong evidence")
    assert "not proof" in clean.reason
    assert "can be missed" in clean.reason
    assert "too few to decide (score 0.62, between 0.30 and 0.80)" in unclear.reason


def test_warnings_say_what_makes_it_less_sure_and_nothing_twice():
    squeezed = msgspec.structs.replace(PICTURE, size_bytes=9_000)
    given = ("This is a drawing.", "This is a drawing.")
    verdict = judge(
        [scored(LOW, side_px=52.0, warnings=("tiny face", "blurred"))],
        [FrameInfo(0, None, 800, 600)],
        media=squeezed,
        model=MODEL,
        calibration=CALIBRATION,
        timings_s={},
        warnings=given,
    )
    assert verdict.warnings == (
        "This is a drawing.",
        "The largest face is only 52 px wide; small faces are judged less reliably.",
        "Every face that was judged is affected: blurred.",
        "The file is heavily compressed, which hides traces of manipulation and can look like them.",
    )
    assert still(scored(LOW)).warnings == ()


def test_a_video_at_a_starved_bit_rate_is_called_heavily_compressed():
    starved = msgspec.structs.replace(VIDEO, size_bytes=500_000, frame_count=800)
    assert any("compressed" in w for w in film(talking_head([LOW] * 16), media=starved).warnings)
    assert not film(talking_head([LOW] * 16)).warnings  # frame count unknown: nothing is claimed


def test_a_face_is_never_called_worse_than_the_verdict():
    verdict = still(scored(2.0), *(scored(LOW, track=i) for i in range(1, 20)))
    assert verdict.label is Label.AUTHENTIC
    assert verdict.faces[0].score > CALIBRATION.manipulated
    assert label_of(verdict.faces[0].score, verdict) is Label.AUTHENTIC
    assert label_of(None, verdict) is Label.INCONCLUSIVE


HOLE = (500, 300, 700, 420)


def test_a_region_makes_a_picture_without_a_face_manipulated_and_the_reason_says_why():
    verdict = still(survey=surveyed(HOLE))
    (region,) = verdict.regions
    assert (verdict.label, verdict.score, verdict.faces) == (Label.MANIPULATED, region.score, ())
    assert verdict.frames[0].score is None, "no face was judged"
    assert verdict.region_threshold == REGION_CALIBRATION.manipulated
    assert verdict.reason == (
        "Very strong evidence that a part of the picture was inpainted, at the right (score >0.99; 0.95 or more counts "
        "as manipulated). No face was found. This is evidence, not proof."
    )


@pytest.mark.parametrize(
    ("faces", "words"),
    [
        ([scored(LOW)], "The one face in it shows no sign of manipulation (score 0.02)."),
        ([scored(LOW), scored(LOW, track=1)], "The 2 faces judged show no sign of manipulation"),
        ([scored(0.5)], "The one face in it alone would be inconclusive (score 0.62)."),
        ([scored(0.5, quality=0.01)], "No face in it could be judged."),
    ],
)
def test_a_region_decides_over_faces_that_say_less_and_they_keep_their_own_labels(faces, words):
    alone, verdict = still(*faces), still(*faces, survey=surveyed(HOLE))
    assert (verdict.label, verdict.score) == (Label.MANIPULATED, verdict.regions[0].score)
    assert words in verdict.reason
    assert verdict.faces == alone.faces
    assert [label_of(f.score, verdict) for f in verdict.faces] == [label_of(f.score, alone) for f in alone.faces]


def test_in_a_crowd_a_region_paints_no_face_that_the_crowd_acquits():
    crowd = [scored(2.0), *(scored(LOW, track=i) for i in range(1, 20))]
    verdict = still(*crowd, survey=surveyed(HOLE))
    assert verdict.label is Label.MANIPULATED
    assert verdict.faces[0].score > CALIBRATION.manipulated
    assert label_of(verdict.faces[0].score, verdict) is Label.AUTHENTIC


def test_with_a_forged_face_both_are_named_and_the_larger_score_counts():
    face, weak, strong = scored(HIGH), surveyed(HOLE, raw=3.1), surveyed(HOLE, (40, 460, 150, 560), raw=6.0)
    assert still(face, survey=weak).score == still(face).score > still(face, survey=weak).regions[0].score
    verdict = still(face, survey=strong)
    assert verdict.score == verdict.regions[0].score > still(face).score
    assert verdict.reason.startswith("Very strong evidence of manipulation in the face, ")
    assert "(score 0.98; 0.80 or more counts as manipulated)" in verdict.reason, "the face's own score"
    assert "2 parts of the picture look inpainted, too, the surest at the" in verdict.reason
    assert label_of(verdict.faces[0].score, verdict) is Label.MANIPULATED


@pytest.mark.parametrize("faces", [[], [scored(LOW)], [scored(0.5)], [scored(HIGH)], [scored(0.5, quality=0.01)]])
def test_a_survey_that_finds_nothing_changes_nothing(faces):
    alone, verdict = still(*faces), still(*faces, survey=surveyed())
    assert msgspec.structs.replace(verdict, region_threshold=None, reason=alone.reason) == alone
    if faces:
        assert verdict.reason == alone.reason
    else:
        assert verdict.reason.endswith("was found in the picture, and no other part of it looks inpainted.")


def test_a_region_never_counts_below_the_threshold_of_faces():
    lenient = Calibration(slope=1.0, intercept=0.0, authentic=0.1, manipulated=0.5)
    assert still(survey=surveyed(HOLE, raw=1.0, calibration=lenient)).label is Label.NO_FACE  # P = 0.73
    verdict = still(survey=surveyed(HOLE, raw=1.5, calibration=lenient))  # P = 0.82
    assert verdict.region_threshold == CALIBRATION.manipulated
    assert verdict.score >= verdict.thresholds.manipulated, "one rule tells the label of every score"


def test_a_picture_that_was_shrunk_for_its_tiles_is_warned_of():
    survey = surveyed(size=(6000, 8000))
    (warning,) = still(survey=survey).warnings
    assert f"shrunk to {survey.shrunk_to:.0%}" in warning


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ((0, 0, 100, 100), "at the top left"),
        ((350, 250, 450, 350), "in the middle"),
        ((350, 500, 450, 600), "at the bottom"),
        ((700, 250, 800, 350), "at the right"),
        ((0, 0, 800, 600), "in the middle"),
    ],
)
def test_places_are_told_by_thirds(box, words):
    assert place(Region(box, 1.0), PICTURE) == words


def test_times_in_a_short_clip_are_told_in_tenths():
    short = msgspec.structs.replace(VIDEO, duration_s=2.9)
    assert moment(film([], media=short), 1.27) == "0:01.2"
    assert moment(film([]), 1.27) == "0:01"


def test_numbers_never_claim_certainty_and_clocks_read_like_players():
    assert [number(x) for x in (0.0, 0.004, 0.5, 0.991, 1.0)] == ["<0.01", "<0.01", "0.50", ">0.99", ">0.99"]
    assert [clock(t) for t in (0.0, 9.9, 75.4, 3661.0)] == ["0:00", "0:09", "1:15", "1:01:01"]
