"""Tiny trees laid out as the field's data sets are: what is forged from which, of whom, in which split, and where."""

import json
import shutil

import cv2
import numpy as np
import pytest
from sitters import PICTURES

from scanner.training import clips, datasets, extract
from scanner.training.datasets import Clip, DatasetError, apart, layout_of
from scanner.training.portraits import read, split_of
from scanner.training.tasks import REAL

SIZE = 320
FRAMES = 2
LOCAL = (130, 130, 60, 60)  # x, y, w, h of the forged part


def face(number):
    return cv2.resize(read(PICTURES[number % 6]), (SIZE, SIZE), interpolation=cv2.INTER_AREA)


def forged(picture):
    x, y, w, h = LOCAL
    out = picture.copy()
    out[y : y + h, x : x + w] = 255 - out[y : y + h, x : x + w]
    return out


def drawn():
    x, y, w, h = LOCAL
    mask = np.zeros((SIZE, SIZE, 3), np.uint8)
    mask[y : y + h, x : x + w] = 255
    return mask


def video(path, picture, count=4):
    """A still face whose light grows, so that every frame is another."""
    clips.write(path, [np.clip(picture * (0.8 + 0.05 * i), 0, 255).astype(np.uint8) for i in range(count)])


def png(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture[:, :, ::-1])


def named(split, taken=()):
    """A name that falls to a split by its hash."""
    return next(n for n in (f"n{i}" for i in range(200)) if split_of(n) == split and n not in taken)


@pytest.fixture(scope="module")
def ff(tmp_path_factory):
    root = tmp_path_factory.mktemp("ff")
    pairs = {"train": ["000", "003"], "val": ["010", "011"], "test": ["020", "021"]}
    for number, (split, pair) in enumerate(pairs.items()):
        (root / f"{split}.json").write_text(json.dumps([pair]))
        for who, stem in enumerate(pair):
            video(root / f"original_sequences/youtube/c23/videos/{stem}.mp4", face(2 * number + who))
        for method in ("Face2Face", "FaceSwap"):
            base, name = root / "manipulated_sequences" / method, f"{pair[0]}_{pair[1]}.mp4"
            video(base / "c23/videos" / name, forged(face(2 * number)), count=4 if method == "Face2Face" else 3)
            if method == "Face2Face":
                video(base / "masks/videos" / name, drawn())
    video(root / "original_sequences/youtube/c23/videos/999.mp4", face(0))  # in no split
    return root


@pytest.fixture(scope="module")
def ff_task(ff, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")
    return extract.task_data("face-swap", ff, ["Face2Face"], ["FaceSwap"], cache=cache, frames=FRAMES), cache


def test_faceforensics_is_read_by_its_own_split(ff):
    found = {clip.name: clip for clip in datasets.faceforensics(ff)}
    assert len(found) == 6 + 6
    fake = found["Face2Face/000_003"]
    assert (fake.split, fake.original, fake.people) == ("train", "real/000", ("000", "003"))
    assert fake.mask == ff / "manipulated_sequences/Face2Face/masks/videos/000_003.mp4"
    assert found["FaceSwap/020_021"].mask is None
    assert found["real/003"].identity == found["real/000"].identity == fake.identity == "000+003"
    assert "real/999" not in found


def test_the_papers_task_comes_out_of_a_tree_like_faceforensics(ff_task):
    data, _ = ff_task
    assert (data.seen.families, data.unseen.families) == (("Face2Face",), ("FaceSwap",))
    for items in (data.seen.train, data.seen.val, data.seen.test):
        assert sorted(i.family for i in items) == ["Face2Face"] * FRAMES + [REAL] * 2 * FRAMES
    assert {i.family for i in data.unseen.measured} == {"FaceSwap", REAL}
    assert {i.identity for i in data.unseen.measured} == {"020+021"}
    reals = {i.name: i for i in data.seen.train if i.is_real}
    for item in data.seen.train:
        assert (item.crop().shape, item.crop().dtype) == ((256, 256, 3), np.uint8)
        if item.is_real:
            assert (item.mask, item.source) == (None, "")
        else:
            change = np.abs(item.crop().astype(int) - reals[item.source].crop()).mean(2)
            mask = item.mask()
            assert mask.shape == (256, 256)
            assert 0.01 < mask.mean() < 0.3
            assert change[mask > 0.9].mean() > 10 * change[mask < 0.1].mean()


def test_a_missing_mask_is_made_from_the_difference_and_a_shorter_forgery_loses_its_last_frames(ff_task):
    data, _ = ff_task
    fakes = [i for i in data.unseen.measured if not i.is_real]
    assert [i.name for i in fakes] == ["FaceSwap/020_021/00001"]  # the other of the original's frames is number 3
    assert 0.01 < fakes[0].mask().mean() < 0.3


def test_what_was_extracted_is_not_extracted_again(ff, ff_task, monkeypatch):
    data, cache = ff_task
    monkeypatch.setattr(extract, "_extracted", lambda *_: pytest.fail("again"))
    again = extract.task_data("face-swap", ff, ["Face2Face"], ["FaceSwap"], cache=cache, frames=FRAMES)
    assert [i.name for i in again.seen.train] == [i.name for i in data.seen.train]


def test_what_is_asked_for_and_not_there_is_named(ff, tmp_path):
    with pytest.raises(DatasetError, match=r"no Glow; there are Face2Face, FaceSwap"):
        extract.task_data("face-swap", ff, ["Face2Face"], ["Glow"], cache=tmp_path)
    with pytest.raises(DatasetError, match="that is for face-swap, not inpainting"):
        extract.task_data("inpainting", ff, ["Face2Face"], ["FaceSwap"], cache=tmp_path)
    with pytest.raises(DatasetError, match="no data set that we know"):
        layout_of(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(ff, broken)
    (broken / "val.json").write_text('{"a": 1}')
    with pytest.raises(DatasetError, match="not a list of pairs"):
        datasets.faceforensics(broken)
    (broken / "val.json").unlink()
    with pytest.raises(DatasetError, match="official split"):
        datasets.faceforensics(broken)


def empty(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_celeb_df_is_read_with_its_test_list(tmp_path):
    trained, tested = named("train"), "id0"
    empty(
        tmp_path,
        "Celeb-real/id0_0000.mp4",
        f"Celeb-real/{trained}_0001.mp4",
        "YouTube-real/00170.mp4",
        "Celeb-synthesis/id0_id16_0000.mp4",
        f"Celeb-synthesis/{trained}_id0_0001.mp4",
        f"Celeb-synthesis/{trained}_id9_0001.mp4",
    )
    listed = "0 Celeb-synthesis/id0_id16_0000.mp4\n1 Celeb-real/id0_0000.mp4\n1 YouTube-real/00170.mp4\n"
    (tmp_path / "List_of_testing_videos.txt").write_text(listed)
    assert layout_of(tmp_path).title == "Celeb-DF-v2"
    found = {clip.name: clip for clip in datasets.celeb_df(tmp_path)}
    fake = found["Celeb-synthesis/id0_id16_0000"]
    assert (fake.split, fake.people, fake.original) == ("test", (tested, "id16"), "Celeb-real/id0_0000")
    assert found["YouTube-real/00170"].split == "test"
    assert found[f"Celeb-real/{trained}_0001"].split == "train"
    kept = {clip.name for clip in apart(found.values())}
    assert f"Celeb-synthesis/{trained}_id0_0001" not in kept  # it shows somebody of the test split
    assert f"Celeb-synthesis/{trained}_id9_0001" in kept


def test_dfdc_is_read_part_by_part(tmp_path):
    part = tmp_path / "dfdc_train_part_0"
    real, fake, lost = (f"{named('train')}{c}.mp4" for c in "abc")
    described = {
        fake: {"label": "FAKE", "split": "train", "original": real},
        real: {"label": "REAL", "split": "train"},
        lost: {"label": "REAL", "split": "train"},
    }
    empty(part, real, fake)
    (part / "metadata.json").write_text(json.dumps(described))
    assert layout_of(tmp_path).title == "DFDC"
    forgery, original = sorted(datasets.dfdc(tmp_path), key=lambda c: c.family)
    assert (forgery.family, original.family) == ("DFDC", REAL)
    assert forgery.original == original.name == f"dfdc_train_part_0/{real[:-4]}"
    assert forgery.identity == original.identity
    assert forgery.split == original.split == split_of(real[:-4])
    (part / "metadata.json").write_text("[]")
    with pytest.raises(DatasetError, match="not DFDC's metadata"):
        datasets.dfdc(tmp_path)


@pytest.mark.parametrize("lists", [False, True])
def test_edited_pairs_become_a_task_with_masks_by_difference(tmp_path, lists):
    root = tmp_path / "celeba"
    stems = [named("train"), named("val"), named("test")]
    for number, stem in enumerate(stems):
        png(root / f"original/{stem}.png", face(number))
        for method in ("StarGAN", "Glow"):
            png(root / f"edited/{method}/{stem}.png", forged(face(number)))
    if lists:  # turned round, so that it shows
        (root / "identity_CelebA.txt").write_text("".join(f"{s}.jpg person{s}\n" for s in stems))
        (root / "list_eval_partition.txt").write_text("".join(f"{s}.jpg {2 - n}\n" for n, s in enumerate(stems)))
    data = extract.task_data("attributes", root, ["StarGAN"], ["Glow"], cache=tmp_path / "cache")
    (real,) = (i for i in data.seen.train if i.is_real)
    (fake,) = (i for i in data.seen.train if not i.is_real)
    who = stems[2] if lists else stems[0]
    assert fake.identity == real.identity == (f"person{who}" if lists else who)
    assert fake.source == real.name == f"real/{who}/00000"
    change = np.abs(fake.crop().astype(int) - real.crop()).max(2)
    assert change[fake.mask() == 0].mean() < 3
    assert 0.01 < fake.mask().mean() < 0.3
    assert {i.family for i in data.unseen.measured} == {"Glow", REAL}


@pytest.mark.parametrize(
    ("pictures", "masks", "methods"), [("images", "holes", ("a", "b")), ("fake", "mask", ("a", "b"))]
)
@pytest.mark.parametrize("originals", [True, False])
def test_pictures_with_holes_become_tiles_around_the_hole(tmp_path, pictures, masks, methods, originals):
    root = tmp_path / "holes"
    big = np.tile(face(0), (2, 2, 1))  # 640 px: the hole is in one tile of many
    mask = np.zeros_like(big)
    mask[500:560, 40:120] = 255
    filled = np.where(mask > 0, 255 - big, big)
    for split in ("train", "val", "test"):
        stem = named(split)
        for method in methods:
            png(root / pictures / method / f"{stem}.png", filled)
        png(root / masks / f"{stem}.png", mask)
        other = stem if originals else named(split, taken={stem})
        png(root / "original" / f"{other}.png", big)
    data = extract.task_data("inpainting", root, ["a"], ["b"], cache=tmp_path / "cache")
    (fake,) = (i for i in data.seen.train if not i.is_real)
    (real,) = (i for i in data.seen.train if i.is_real)
    assert (fake.crop() == filled[640 - 256 :, :256]).all()  # whole pixels, nothing resampled
    assert (fake.mask() * 255 == mask[640 - 256 :, :256, 0]).all()
    assert real.crop().shape == (256, 256, 3)
    if originals:
        assert fake.source == real.name
        assert (real.crop() == big[640 - 256 :, :256]).all()
    else:
        assert fake.source == ""


def test_a_hole_folder_without_methods_is_one_method(tmp_path):
    png(tmp_path / "images/a.png", face(0))
    png(tmp_path / "holes/a.png", drawn())
    (clip,) = datasets.holes(tmp_path)
    assert (clip.family, clip.mask, clip.original) == ("inpainting", tmp_path / "holes/a.png", "")
    with pytest.raises(DatasetError, match="images/ and holes/"):
        datasets.holes(tmp_path / "images")


def test_nobody_is_left_in_two_splits():
    def clip(name, split, *people):
        return Clip(name, REAL, people, split, None)

    found = apart(
        [clip("1", "train", "a"), clip("2", "train", "b", "c"), clip("3", "val", "c"), clip("4", "test", "c", "d")]
    )
    assert [c.name for c in found] == ["1", "4"]
