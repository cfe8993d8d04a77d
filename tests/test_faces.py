"""Detection on real portraits, alignment, quality, tracks."""

from itertools import pairwise
from pathlib import Path

import bench_faces
import cv2
import numpy as np
import pytest
import torch
from bench_faces import Case, as_discs

from scanner.detection.faces import (
    TEMPLATE,
    Face,
    FaceDetector,
    align,
    judge_quality,
    link,
    mapped,
    similarity,
    turned_back,
)
from scanner.errors import BadWeights

MEDIA = Path(__file__).parent / "media"
NAMES = tuple(sorted(path.stem for path in MEDIA.glob("*_[123].jpg")))
SHARED = bench_faces.DATA / "faces"
EXTRA = [path for folder in bench_faces.FOLDERS for path in sorted((SHARED / folder).glob("*.jpg"))[:2]]


@pytest.fixture(scope="module")
def detector():
    torch.set_num_threads(1)
    return FaceDetector()


@pytest.fixture(scope="module")
def portraits(detector):
    frames = [bench_faces.read(MEDIA / f"{name}.jpg") for name in NAMES]
    return [(frame, faces[0]) for frame, faces in zip(frames, detector.detect(frames), strict=True)]


@pytest.fixture(scope="module")
def cases(portraits):
    return [Case(frame, as_discs(np.array([face.box]))) for frame, face in portraits]


def face_at(x, y, side=100.0, confidence=1.0):
    box = (x - side / 2, y - side / 2, x + side / 2, y + side / 2)
    return Face(box, ((TEMPLATE - 0.5) * side * 1.6 + (x, y)).astype(np.float32), confidence)


def recall(detect, cases):
    hits = [bench_faces.matched(case.faces, detect(case.frame))[0] for case in cases]
    return sum(hits) / sum(len(case.faces) for case in cases)


def tilt_of(face):
    x, y = face.landmarks[1] - face.landmarks[0]
    return -np.degrees(np.arctan2(y, x))  # counterclockwise, as cv2 turns


# ---------------------------------------------------------------- detection


def test_there_are_six_portraits():
    assert len(NAMES) == 6


def test_each_portrait_has_one_face_with_points_in_order(detector):
    for name in NAMES:
        (face,) = detector.detect([bench_faces.read(MEDIA / f"{name}.jpg")])[0]
        eye, other_eye, nose, mouth, other_mouth = face.landmarks
        assert eye[0] < nose[0] < other_eye[0]
        assert mouth[0] < other_mouth[0]
        assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])
        assert face.confidence > 0.99
        assert face.landmarks.dtype == np.float32


@pytest.mark.parametrize("path", EXTRA, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_other_portraits_have_one_face_too(detector, path):
    assert len(detector.detect([bench_faces.read(path)])[0]) == 1


@pytest.mark.parametrize("change", ["tilted 30 deg", "tilted 45 deg", "face 40 px", "avatar 80x80", "JPEG 10", "dark"])
def test_a_changed_portrait_keeps_its_face(detector, cases, change):
    detect = bench_faces.cascade(detector)
    assert recall(detect, [bench_faces.CHANGES[change](case) for case in cases]) == 1


def test_thirty_faces_on_one_canvas_are_found_at_least_as_well_as_by_haar(detector, cases):
    (collage,) = bench_faces.collages(cases * 5)
    ours = recall(bench_faces.cascade(detector), [collage])
    assert ours >= recall(bench_faces.haar(), [collage])
    assert ours >= 0.95


@pytest.mark.parametrize("degrees", [-45, -20, 30, 45])
def test_points_follow_a_tilted_head(detector, portraits, degrees):
    for frame, face in portraits:
        turned = bench_faces.turned(Case(frame, as_discs(np.array([face.box]))), degrees)
        found = detector.detect([turned.frame])[0][0]
        assert tilt_of(found) - tilt_of(face) == pytest.approx(degrees, abs=5)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_picture_on_its_side_or_head_is_read_the_right_way_up(detector, portraits, quarters):
    frame, face = portraits[NAMES.index("london_1")]
    turned = np.ascontiguousarray(np.rot90(frame, quarters))
    found = detector.detect([turned])[0][0]
    upright = turned_back(found, quarters, frame.shape[1], frame.shape[0])
    eye_distance = np.linalg.norm(face.landmarks[1] - face.landmarks[0])
    assert np.abs(upright.landmarks - face.landmarks).max() < 0.25 * eye_distance


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turned_back_is_where_numpy_turned_it_from(quarters):
    picture = np.zeros((40, 60), np.uint8)
    picture[7, 11] = 1
    y, x = (int(n[0]) for n in np.nonzero(np.rot90(picture, quarters)))
    face = Face((x, y, x + 1, y + 1), np.full((5, 2), (x + 0.5, y + 0.5), np.float32), 1.0)
    back = turned_back(face, quarters, 60, 40)
    assert back.box == (11, 7, 12, 8)
    np.testing.assert_allclose(back.landmarks, [(11.5, 7.5)] * 5)


def test_largest_face_first_and_no_more_than_asked(detector, cases):
    (collage,) = bench_faces.collages(cases * 5)
    some = detector.detect([collage.frame], max_faces=5)[0]
    areas = [(f.box[2] - f.box[0]) * (f.box[3] - f.box[1]) for f in some]
    assert len(areas) == 5
    assert all(a >= b for a, b in pairwise(areas))


def test_small_faces_are_left_out_when_not_wanted(detector, cases):
    small = bench_faces.shrunk(cases[0], 50).frame
    assert detector.detect([small], min_face_px=40)[0]
    assert not detector.detect([small], min_face_px=100)[0]


def test_frames_of_different_size_keep_their_order(detector, portraits):
    blank = np.full((100, 120, 3), 255, np.uint8)
    answers = detector.detect([blank, portraits[0][0], blank, portraits[3][0]])
    assert [len(faces) for faces in answers] == [0, 1, 0, 1]


def test_a_huge_picture_is_searched_for_large_faces(detector, portraits):
    frame = cv2.resize(portraits[3][0], (5000, 5000), interpolation=cv2.INTER_CUBIC)
    (face,) = detector.detect([frame])[0]
    crop, _ = align(frame, face)
    small, _ = align(*portraits[3])
    assert np.abs(crop.astype(int) - small).mean() < 8


def test_broken_weights_are_reported_not_hidden(monkeypatch, tmp_path):
    monkeypatch.setattr("scanner.detection.mtcnn.WEIGHTS_SHA256", "0" * 64)
    with pytest.raises(BadWeights):
        FaceDetector()


# ---------------------------------------------------------------- alignment


def test_similarity_is_found_again():
    points = np.random.default_rng(0).normal(size=(5, 2))
    matrix = np.array([[1.2, -0.7, 30], [0.7, 1.2, -4]])
    np.testing.assert_allclose(similarity(points, mapped(matrix, points)), matrix, atol=1e-9)


def test_similarity_never_mirrors():
    flipped = TEMPLATE * (-1, 1)
    a, b = similarity(TEMPLATE, flipped)[:, :2]
    assert a[0] * b[1] - a[1] * b[0] >= 0


def test_the_template_is_symmetric_and_leaves_room_for_the_head():
    np.testing.assert_allclose(TEMPLATE[[1, 0, 2, 4, 3]] * (-1, 1) + (1, 0), TEMPLATE)
    assert TEMPLATE[0, 1] > 0.35  # hairline above
    assert TEMPLATE[3, 1] < 0.75  # chin below


def test_a_crop_has_the_points_on_the_template(portraits):
    for frame, face in portraits:
        crop, crop_to_frame = align(frame, face)
        assert crop.shape == (256, 256, 3)
        assert crop.dtype == np.uint8
        assert crop_to_frame.dtype == np.float64
        np.testing.assert_allclose(mapped(crop_to_frame, TEMPLATE).mean(0), face.landmarks.mean(0), atol=0.1)
        to_crop = np.linalg.inv(np.vstack([crop_to_frame, [0, 0, 1]]))[:2]
        assert np.abs(mapped(to_crop, face.landmarks) - TEMPLATE).max() < 0.07


@pytest.fixture(scope="module")
def slope():
    """A frame whose pixels tell where they were: red = x * 255 / 900, green = y * 255 / 700."""
    frame = np.zeros((700, 900, 3), np.uint8)
    frame[:, :, 0] = np.round(np.arange(900) * 255 / 900)
    frame[:, :, 1] = np.round(np.arange(700) * 255 / 700)[:, None]
    return frame


@pytest.mark.parametrize("side", [30, 130, 330, 1500])
@pytest.mark.parametrize("degrees", [0, 25, -160])
def test_crop_and_frame_agree_in_both_directions(slope, side, degrees):
    turn = cv2.getRotationMatrix2D((0, 0), degrees, 1)
    turn[:, 2] = 450, 350
    points = mapped(turn, (TEMPLATE - 0.5) * side)
    crop, crop_to_frame = align(slope, Face((0, 0, 1, 1), points.astype(np.float32), 1.0))
    for i, j in ((10, 10), (128, 128), (30, 220), (240, 100)):
        x, y = mapped(crop_to_frame, np.array([[(i + 0.5) / 256, (j + 0.5) / 256]]))[0]
        if 8 < x < 892 and 8 < y < 692:
            assert crop[j, i, 0] == pytest.approx((x - 0.5) * 255 / 900, abs=1.2)
            assert crop[j, i, 1] == pytest.approx((y - 0.5) * 255 / 700, abs=1.2)


@pytest.mark.parametrize("zoom", [1.2, 2.0, 3.3, 9.0])
def test_shrinking_does_not_alias(zoom):
    side = int(300 * zoom)
    stripes = np.zeros((side, side, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than any crop pixel: must come out grey
    crop, _ = align(stripes, face_at(side / 2, side / 2, 256 * zoom / 1.6))
    assert np.abs(crop[20:-20, 20:-20].astype(int) - 127).max() < (110 if zoom < 2 else 40)


def test_outside_of_the_frame_the_picture_is_mirrored():
    frame = np.full((100, 100, 3), 180, np.uint8)
    crop, _ = align(frame, face_at(5, 5, 60))
    assert crop.min() == 180


def test_any_size_may_be_asked(portraits):
    assert align(*portraits[0], size=64)[0].shape == (64, 64, 3)


@pytest.mark.parametrize("where", [(-500, -500), (50, 4000), (99, 0)])
@pytest.mark.parametrize("side", [1.0, 100.0, 9000.0])
def test_a_face_far_off_the_frame_does_not_crash(where, side):
    assert align(np.zeros((100, 100, 3), np.uint8), face_at(*where, side))[0].shape == (256, 256, 3)


# ---------------------------------------------------------------- quality


def quality_of(detector, frame):
    face = detector.detect([frame])[0][0]
    return judge_quality(frame, face, align(frame, face)[0])


def test_good_portraits_are_good(portraits):
    for frame, face in portraits:
        quality = judge_quality(frame, face, align(frame, face)[0])
        assert quality.warnings == ()
        assert quality.score > 0.6


def test_small_blurred_and_cut_faces_are_told(detector, cases):
    case = cases[NAMES.index("london_1")]
    assert "tiny face" in quality_of(detector, bench_faces.shrunk(case, 42).frame).warnings
    assert "blurred" in quality_of(detector, bench_faces.blurred(case).frame).warnings
    x, y, side = case.faces[0]
    half = case.frame[:, int(x - side * 0.12) :].copy()
    face = Face((-side * 0.4, y - side / 2, side * 0.6, y + side / 2), face_at(side * 0.1, y, side).landmarks, 1.0)
    assert "cut off" in judge_quality(half, face, align(half, face)[0]).warnings


def test_turned_and_doubtful_faces_are_told(portraits):
    frame, face = portraits[NAMES.index("london_1")]
    crop = align(frame, face)[0]
    profile = face.landmarks.copy()
    profile[2, 0] += 0.5 * np.linalg.norm(profile[1] - profile[0])
    assert "turned away" in judge_quality(frame, Face(face.box, profile, 1.0), crop).warnings
    assert "doubtful face" in judge_quality(frame, Face(face.box, face.landmarks, 0.91), crop).warnings


def test_worse_is_never_better(detector, cases):
    case = cases[NAMES.index("london_2")]
    scores = [quality_of(detector, bench_faces.shrunk(case, px).frame).score for px in (90, 60, 42)]
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)


def test_a_flat_crop_is_blurred_not_a_crash():
    frame = np.full((200, 200, 3), 128, np.uint8)
    face = face_at(100, 100)
    assert "blurred" in judge_quality(frame, face, align(frame, face)[0]).warnings


# ---------------------------------------------------------------- tracks


def test_two_people_keep_their_tracks_while_they_move():
    frames = [[face_at(100 + 20 * t, 100), face_at(400 - 20 * t, 100)] for t in range(5)]
    frames[2].reverse()  # the order in a frame means nothing
    assert link(frames, [0.0, 0.5, 1.0, 1.5, 2.0]) == [[0, 1], [0, 1], [1, 0], [0, 1], [0, 1]]


def test_a_jump_and_another_size_begin_new_tracks():
    assert link([[face_at(100, 100)], [face_at(300, 100)]], [0.0, 0.5]) == [[0], [1]]
    assert link([[face_at(100, 100)], [face_at(100, 100, 180)]], [0.0, 0.5]) == [[0], [1]]


def test_far_in_time_is_another_track():
    assert link([[face_at(100, 100)], [face_at(100, 100)]], [0.0, 59.0]) == [[0], [0]]
    assert link([[face_at(100, 100)], [face_at(100, 100)]], [0.0, 61.0]) == [[0], [1]]


def test_a_track_survives_a_frame_without_the_face():
    assert link([[face_at(100, 100)], [], [face_at(110, 100)]], [0.0, 1.0, 2.0]) == [[0], [], [0]]


def test_the_nearest_face_gets_the_track_and_each_track_one_face():
    frames = [[face_at(100, 100)], [face_at(140, 100), face_at(105, 100)]]
    assert link(frames, [0.0, 0.5]) == [[0], [1, 0]]


def test_a_single_picture_without_times():
    assert link([[face_at(10, 10), face_at(300, 300)]], [None]) == [[0, 1]]
    assert link([], []) == []
