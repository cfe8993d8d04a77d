"""What a checkpoint is measured on: the right split, the same face after every re-encoding, forgeries and originals."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from landscapes import photos as landscapes
from sitters import PICTURES, TINY, portraits

from scanner.detection import tiles
from scanner.detection.faces import FaceDetector
from scanner.detection.lae import Encoder
from scanner.training import scenes, subjects
from scanner.training.robustness import raw_scores
from scanner.training.subjects import Faces, Scenes, photos_of, reencoded


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The photographs as the loaders expect them: london_1 (test), london_2 (val), london_3 (train)."""
    root = tmp_path_factory.mktemp("photos")
    (root / "london_neutral").mkdir()
    for path in PICTURES:
        if path.stem.startswith("london"):
            shutil.copy(path, root / "london_neutral")
    return root


def test_photographs_are_split_by_identity(photos):
    found = {split: [path.stem for path in photos_of(photos, split)] for split in ("train", "val", "test")}
    assert found == {"train": ["london_3"], "val": ["london_2"], "test": ["london_1"]}


def test_every_reencoding_of_a_photograph_still_shows_the_same_face():
    crops = reencoded([PICTURES[-1]], FaceDetector())
    assert set(crops) == set(subjects.REENCODINGS)
    (untouched,) = crops["untouched"]
    for name, group in crops.items():
        (sample,) = group
        assert sample.family == "real"
        assert not sample.mask.any()
        off = np.abs(sample.crop.astype(float) - untouched.crop).mean()
        assert (off == 0) == (name == "untouched")
        assert off < 12, name


def test_the_middle_of_a_canvas_is_the_crop_at_any_size(photos):
    canvas = portraits()[0].canvas
    crop = Faces(photos).cut(canvas)
    assert np.array_equal(crop, canvas[48:304, 48:304])
    half = Faces(photos).cut(subjects.resize(canvas, 0.5))
    assert half.shape == crop.shape
    assert np.abs(half.astype(float) - crop).mean() < 12


def test_every_forgery_is_kept_with_its_original_and_mask(photos):
    people = [replace(p, source="fellows") for p in portraits()]
    cases = Faces(photos).cases(people, ("attribute", "warp"), np.random.default_rng(0))
    assert [case.family for case in cases] == ["real"] * 6 + ["attribute"] * 2 + ["warp"] * 2
    for case in cases:
        changed = (case.canvas != case.original).any(2)
        assert changed.any() == case.mask.any() == (case.family != "real")
        assert not changed[case.mask == 0].any()


def test_only_portraits_that_came_untouched_are_cases(photos):
    people = [replace(p, source="congress" if i else "fellows") for i, p in enumerate(portraits())]
    assert len(Faces(photos).cases(people, (), np.random.default_rng(0))) == 1


def test_a_scene_counts_with_its_worst_tile(monkeypatch):
    scenes_of_val = [replace(p, source="val", identity=f"p{i}") for i, p in enumerate(landscapes())]
    kept = [p for p in scenes_of_val if scenes.split(p) == "val"]
    monkeypatch.setattr(subjects, "REENCODINGS", {"untouched": lambda p: p})
    torch.manual_seed(0)
    encoder = Encoder(TINY).eval()
    (scores,) = Scenes(scenes_of_val).alarms(encoder, "val").values()
    assert len(scores) == len(kept) > 0
    plan = tiles.plan(*kept[0].canvas.shape[:2])
    each = raw_scores(encoder, list(tiles.cut(kept[0].canvas, plan)))
    assert len(each) > 1
    assert scores[0] == pytest.approx(each.max())


def test_scenes_are_cut_and_forged_like_tiles():
    subject = Scenes(landscapes())
    cases = subject.cases(landscapes(), ("telea",), np.random.default_rng(0))
    assert [case.family for case in cases] == ["real"] * 3 + ["telea"]
    assert subject.cut(cases[0].canvas).shape == (256, 256, 3)


def test_canvases_that_all_came_treated_are_an_error(photos):
    with pytest.raises(ValueError, match="no canvas that counts as untouched; those are of fellows"):
        Faces(photos).cases(portraits(), (), np.random.default_rng(0))
