"""The cascade's networks, its pieces and its weights."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import safetensors.torch
import torch

from scanner.detection import mtcnn
from scanner.detection.mtcnn import Mtcnn, cut, halvings, keep_best, level, passing, rotations, tilts_of, windows
from scanner.detection.nets import Halved, ONet, PNet, RNet
from scanner.errors import BadWeights

MEDIA = Path(__file__).parent / "media"


@pytest.fixture(scope="module")
def cascade():
    torch.set_num_threads(1)
    return Mtcnn()


def portrait(name="london_1"):
    return np.ascontiguousarray(cv2.imread(str(MEDIA / f"{name}.jpg"))[:, :, ::-1])


def smooth(height, width):
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 255, (max(2, height // 40), max(2, width // 40), 3), np.uint8)
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def test_only_what_passes_leaves_the_device_and_each_frame_gets_its_own():
    rng = torch.Generator().manual_seed(0)
    p, offsets = torch.rand(3, 5, 7, generator=rng), torch.rand(3, 4, 5, 7, generator=rng)
    p[1] = 0  # a frame without any
    for frame, (cells, values) in enumerate(passing(p, offsets, 0.6)):
        rows, columns = np.nonzero(p[frame].numpy() >= 0.6)
        assert cells.tolist() == np.stack([rows, columns], 1).tolist()
        np.testing.assert_array_equal(values[:, 0], p[frame].numpy()[rows, columns])
        np.testing.assert_array_equal(values[:, 1:], offsets[frame].numpy()[:, rows, columns].T)
    assert passing(torch.zeros(2, 5, 7), torch.zeros(2, 4, 5, 7), 0.6)[1][1].shape == (0, 5)


def test_windows_come_best_first_in_pixels_of_the_frame(monkeypatch):
    cells, values = np.array([[0, 3], [2, 1], [4, 4]]), np.array([[0.7], [0.9], [0.8]], np.float32).repeat(5, 1)
    boxes = windows(cells, values, (2.0, 3.0))
    assert boxes[:, 4].tolist() == pytest.approx([0.9, 0.8, 0.7])
    assert boxes[0, :4].tolist() == [4.0, 12.0, 28.0, 48.0]  # cell (2, 1): from 2, 4 px of the level, 12 px wide
    monkeypatch.setattr(mtcnn, "MAX_CANDIDATES", 1)
    assert len(windows(cells, values, (1.0, 1.0))) == 1


@torch.inference_mode()
def test_pnet_sees_one_window_per_two_pixels():
    p, offsets = PNet()(torch.zeros(2, 3, 12, 20))
    assert p.shape == (2, 1, 5)
    assert offsets.shape == (2, 4, 1, 5)


@pytest.mark.parametrize(
    "shape", [(1, 10, 8, 6), (2, 10, 7, 6), (1, 10, 8, 5), (3, 10, 7, 5), (1, 10, 1, 1), (1, 3, 1, 9)]
)
def test_halving_is_pooling_to_the_bit(shape):
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    assert torch.equal(Halved()(x), torch.nn.MaxPool2d(2, 2, ceil_mode=True)(x))


def test_rnet_and_onet_take_24_and_48_pixels():
    assert [tuple(t.shape) for t in RNet()(torch.zeros(3, 3, 24, 24))] == [(3,), (3, 4)]
    assert [tuple(t.shape) for t in ONet()(torch.zeros(3, 3, 48, 48))] == [(3,), (3, 4), (3, 10)]


def test_a_missing_checkpoint_is_named(tmp_path):
    with pytest.raises(BadWeights, match="nowhere"):
        Mtcnn(tmp_path / "nowhere.safetensors")


def test_one_altered_byte_is_refused(tmp_path):
    data = bytearray(mtcnn.WEIGHTS.read_bytes())
    data[-1] ^= 1
    altered = tmp_path / "mtcnn.safetensors"
    altered.write_bytes(data)
    with pytest.raises(BadWeights, match="not the shipped"):
        Mtcnn(altered)


def test_the_licence_ships_beside_the_weights():
    text = mtcnn.WEIGHTS.with_suffix(".LICENSE").read_text()
    assert "Timothy Esler" in text
    assert "Permission is hereby granted" in text


def test_conversion_gives_back_the_shipped_file(tmp_path):
    state = safetensors.torch.load_file(mtcnn.WEIGHTS)
    paths = []
    for name, dense in (("pnet", ""), ("rnet", "features.9.weight"), ("onet", "features.12.weight")):
        given = {}
        for key in {"pnet": PNet, "rnet": RNet, "onet": ONet}[name]().state_dict():
            value = state[f"{name}.{key}"]
            if key == dense:  # back to W, H, C
                value = value.reshape(len(value), -1, 3, 3).permute(0, 3, 2, 1).reshape(value.shape).contiguous()
            given[f"theirs.{key}"] = value
        paths.append(tmp_path / f"{name}.pt")
        torch.save(given, paths[-1])
    out = tmp_path / "out.safetensors"
    mtcnn.convert(*paths, out)
    assert out.read_bytes() == mtcnn.WEIGHTS.read_bytes()


def test_keep_best_drops_the_lesser_of_two_that_overlap():
    boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40]], np.float32)
    assert keep_best(boxes, np.array([0.8, 0.9, 0.7]), 0.5).tolist() == [1, 2]


def test_keep_best_of_the_smaller_drops_a_box_within_another():
    boxes = np.array([[0, 0, 100, 100], [40, 40, 60, 60]], np.float32)
    p = np.array([0.9, 0.8])
    assert keep_best(boxes, p, 0.7).tolist() == [0, 1]
    assert keep_best(boxes, p, 0.7, of_smaller=True).tolist() == [0]


def test_keep_best_bounds_its_work():
    boxes = np.arange(4 * 5000, dtype=np.float32).reshape(-1, 4)
    assert len(keep_best(boxes, np.linspace(0, 1, 5000), 0.5)) <= mtcnn.MAX_CANDIDATES


def test_keep_best_of_nothing_is_nothing():
    assert keep_best(np.zeros((0, 4), np.float32), np.zeros(0), 0.5).tolist() == []


@pytest.mark.parametrize("scale", [1.3, 0.9, 0.31, 0.11])
def test_a_level_zooms_back_to_frame_pixels(scale):
    frame = smooth(301, 403)
    pixels, zoom_x, zoom_y = level(halvings(frame), scale)
    assert zoom_x == pytest.approx(1 / scale, rel=0.05)
    y, x = pixels.shape[0] // 2, pixels.shape[1] // 3
    there = frame[int((y + 0.5) * zoom_y), int((x + 0.5) * zoom_x)].astype(int)
    assert np.abs(pixels[y, x] - there).max() < 14


@pytest.mark.parametrize("side", [30, 48, 130, 290])
def test_a_crop_shows_its_box(side):
    frame = smooth(401, 399)
    box = np.array([[51.3, 60.7, 51.3 + side, 60.7 + side]], np.float32)
    crop = cut(halvings(frame), box, 24)[0]
    for i, j in ((3, 3), (12, 20), (20, 5)):
        x, y = 51.3 + (i + 0.5) * side / 24, 60.7 + (j + 0.5) * side / 24
        assert np.abs(crop[j, i].astype(int) - frame[int(y), int(x)]).max() < 20


def test_a_turned_crop_equals_the_crop_of_the_turned_frame():
    frame = smooth(200, 200)
    box = np.array([[60, 40, 124, 104]], np.float32)
    turned = np.rot90(frame).copy()  # counterclockwise: what pointed down points right
    moved = np.array([[40, 200 - 124, 104, 200 - 60]], np.float32)
    upright = cut(halvings(frame), box, 48)[0]
    back = cut(halvings(turned), moved, 48, np.array([-np.pi / 2], np.float32))[0]
    assert np.abs(upright.astype(int) - back).max() <= 3


def test_beyond_the_frame_a_crop_is_black():
    crop = cut(halvings(np.full((60, 60, 3), 200, np.uint8)), np.array([[-48, 0, 0, 48]], np.float32), 24)[0]
    assert crop[:, :22].max() == 0


@pytest.mark.parametrize("degrees", [-170, -90, -30, 0, 45, 120])
def test_the_tilt_of_a_turned_head_is_the_turn(degrees):
    head = np.array([[-1, -1], [1, -1], [0, 0], [-1, 1], [1, 1]], np.float32)
    turned = head @ rotations(np.radians([degrees]).astype(np.float32))[0].T
    assert np.degrees(tilts_of(turned[None]))[0] == pytest.approx(degrees, abs=1e-3)


def test_detection_does_not_depend_on_the_batch(cascade):
    frames = [portrait(), np.full((384, 384, 3), 128, np.uint8), portrait("london_2")]
    together = cascade.detect(frames)
    assert [len(found.boxes) for found in together] == [1, 0, 1]
    alone = cascade.detect(frames[2:])[0]
    np.testing.assert_allclose(together[2].boxes, alone.boxes, atol=0.01)
    np.testing.assert_allclose(together[2].landmarks, alone.landmarks, atol=0.01)


@pytest.mark.parametrize("shape", [(1, 1), (3, 400), (11, 11), (12, 12), (13, 999)])
def test_tiny_and_thin_frames_hold_no_face(cascade, shape):
    assert len(cascade.detect([np.full((*shape, 3), 90, np.uint8)])[0].boxes) == 0


def test_noise_gives_no_face_and_bounded_work(cascade):
    noise = np.random.default_rng(0).integers(0, 255, (720, 1280, 3), np.uint8)
    assert len(cascade.detect([noise])[0].boxes) == 0


def test_no_frames_no_answers(cascade):
    assert cascade.detect([]) == []
