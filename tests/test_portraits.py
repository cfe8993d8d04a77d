"""Portraits: upright, with room, with landmarks where they belong, split by identity."""

import shutil
from collections import Counter

import cv2
import numpy as np
import pytest
from sitters import PICTURES, portraits

from scanner.detection.faces import TEMPLATE, Face, FaceDetector
from scanner.training.portraits import (
    CANVAS_PX,
    CROP_PX,
    MARGIN_PX,
    REGIONS,
    cut,
    five_of,
    from_files,
    identity_of,
    load,
    mean_shape,
    read,
    region,
    save,
    split_of,
)


def test_every_picture_gives_one_portrait():
    assert [p.identity for p in portraits()] == [path.stem for path in PICTURES]
    for portrait in portraits():
        assert (portrait.canvas.shape, portrait.canvas.dtype) == ((CANVAS_PX, CANVAS_PX, 3), np.uint8)
        assert (portrait.shape.shape, portrait.shape.dtype) == ((189, 2), np.float32)
        assert portrait.source == "media"


def test_eyes_nose_and_mouth_sit_where_the_crop_expects_them():
    for portrait in portraits():
        off = np.hypot(*(five_of(portrait.shape) - (TEMPLATE * CROP_PX + MARGIN_PX)).T)
        assert off.max() < 0.06 * CROP_PX, portrait.identity


@pytest.mark.parametrize("enlarged", [1, 4])
def test_landmarks_move_with_the_pixels(enlarged):
    # A disc at each landmark of a turned face must lie at the same landmark of the canvas, also when it is shrunk.
    turn = np.array([[0.96, -0.28], [0.28, 0.96]]) * 160 * enlarged
    points = ((TEMPLATE - 0.5) @ turn.T + (220 * enlarged, 200 * enlarged)).astype(np.float32)
    frame = np.zeros((400 * enlarged, 440 * enlarged, 3), np.uint8)
    for x, y in points:
        cv2.circle(frame, (round(x), round(y)), 5 * enlarged, (255, 255, 255), -1)
    box = (140.0 * enlarged, 120.0 * enlarged, 300.0 * enlarged, 280.0 * enlarged)
    portrait = cut(frame, Face(box, points, 1.0), identity="a", source="b", landmarks=np.resize(points, (189, 2)))
    for x, y in portrait.shape[:5]:
        assert portrait.canvas[round(y), round(x)].min() > 200
    assert portrait.canvas.mean() < 20
    assert portrait.scale == pytest.approx(256 / (160 * enlarged), rel=0.15)


def test_landmarks_by_hand_are_preferred():
    path = PICTURES[0]
    known = np.stack([np.linspace(100, 200, 189), np.linspace(120, 160, 189)], 1)
    (by_hand,) = from_files([path], FaceDetector(), landmarks={f"media/{path.name}": known.tolist()})
    assert (by_hand.canvas == portraits()[0].canvas).all()
    steps = np.diff(by_hand.shape, axis=0)
    np.testing.assert_allclose(steps, np.broadcast_to(steps[0], steps.shape), atol=1e-3)  # still on a line


@pytest.mark.parametrize("name", REGIONS)
def test_regions_lie_on_the_canvas_and_have_an_area(name):
    for portrait in portraits():
        points = region(portrait.shape, name)
        assert points.min() > 0
        assert points.max() < CANVAS_PX
        assert cv2.contourArea(cv2.convexHull(points)) > 0.001 * CANVAS_PX**2


def test_parts_of_the_mean_face_are_in_order():
    middle = {name: region(mean_shape(), name).mean(0) for name in REGIONS}
    assert middle["left_eye"][0] < middle["nose"][0] < middle["right_eye"][0]
    assert middle["hair"][1] < middle["left_brow"][1] < middle["left_eye"][1] < middle["nose"][1] < middle["mouth"][1]


def test_splits_are_for_ever():
    assert [split_of(name) for name in ("london_1", "london_2", "london_3")] == ["test", "val", "train"]
    share = Counter(split_of(f"person {number}") for number in range(3000))
    assert share["train"] == pytest.approx(2400, abs=100)
    assert share["val"] == pytest.approx(300, abs=60)


def test_pictures_of_one_person_share_an_identity(tmp_path):
    assert identity_of(tmp_path / "004__004_03.jpg") == identity_of(tmp_path / "004__004_08.jpg") == "004"
    assert identity_of(tmp_path / "fellow_1.jpg") == "fellow_1"


def test_kept_portraits_come_back_whole(tmp_path):
    save(portraits(), tmp_path / "kept.npz")
    for kept, portrait in zip(load(tmp_path / "kept.npz"), portraits(), strict=True):
        assert (kept.canvas == portrait.canvas).all()
        assert (kept.shape == portrait.shape).all()
        assert (kept.identity, kept.source, kept.scale) == (portrait.identity, portrait.source, portrait.scale)


def test_pictures_without_a_face_are_left_out(tmp_path):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 128, np.uint8))
    shutil.copy(PICTURES[0], tmp_path / "face.jpg")
    found = from_files([tmp_path / "wall.png", tmp_path / "face.jpg"], FaceDetector())
    assert [p.identity for p in found] == ["face"]


def test_pictures_are_rgb_and_broken_ones_are_named(tmp_path):
    cv2.imwrite(str(tmp_path / "red.png"), np.full((8, 8, 3), (0, 0, 255), np.uint8))
    assert read(tmp_path / "red.png")[0, 0].tolist() == [255, 0, 0]
    (tmp_path / "broken.jpg").write_bytes(b"not a picture")
    with pytest.raises(OSError, match=r"broken\.jpg"):
        read(tmp_path / "broken.jpg")
