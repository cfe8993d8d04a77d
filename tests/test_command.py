"""`laescan train` and `laescan evaluate` from portraits to report; our own tasks forged from photographs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sitters import PICTURES, portraits

from scanner.cli import Exit, main
from scanner.training.forged import forged_task, photographs_of
from scanner.training.portraits import save, split_of

MEDIA = Path(__file__).parent / "media"
PAIRS = {"train": 6, "val": 2, "test": 2}


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The whole protocol, tiny, on six portraits."""
    folder = tmp_path_factory.mktemp("trained")
    save(portraits(), folder / "portraits.npz")
    options = ["--pictures", str(folder / "portraits.npz"), "--seen", "self_blend", "--unseen", "warp", "--smoke"]
    arguments = ["train", "--task", "face-swap", *options, "--arms", "lae,meso-inception", "--out", str(folder / "run")]
    assert main(arguments) == Exit.OK
    return folder / "run", arguments


def test_one_command_goes_from_portraits_to_a_report(trained):
    folder, _ = trained
    assert set(json.loads((folder / "report.json").read_text())) == {"lae", "meso-inception"}
    text = (folder / "report.md").read_text()
    assert "Seen: self_blend. Unseen, measured once all was decided: warp." in text
    assert "6 photographs, forged here" in text
    assert "1 automatic" in text


def test_the_same_command_again_has_nothing_left_to_train(trained, capsys):
    folder, arguments = trained
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("best.pt")}
    assert main(arguments) == Exit.OK
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("best.pt")} == before
    assert capsys.readouterr().out.strip() == str(folder / "report.html")


def test_evaluate_writes_the_report_anew(trained, capsys):
    folder, _ = trained
    before = (folder / "report.json").read_text()
    (folder / "report.json").unlink()
    assert main(["evaluate", str(folder)]) == Exit.OK
    assert (folder / "report.json").read_text() == before
    assert str(folder / "report.html") in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give --data (a data set) or --pictures"),
        (["--data", "x", "--pictures", "y"], "one of them"),
        (["--data", "x"], "name the methods: --seen"),
        (["--pictures", str(MEDIA), "--arms", "best"], "no arm best; there are"),
        (["--pictures", str(MEDIA), "--seen", "warp", "--unseen", "warp"], "cannot be both"),
        (["--pictures", str(MEDIA), "--seen", "magic"], "cannot forge magic for face-swap; there are"),
        (["--data", str(MEDIA), "--seen", "a", "--unseen", "b"], "no data set that we know"),
    ],
)
def test_a_wrong_command_says_what_is_wrong(arguments, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("scanner.training.command.photographs_of", lambda *_, **__: portraits())
    assert main(["train", "--task", "face-swap", "--smoke", "--out", str(tmp_path), *arguments]) == Exit.USAGE
    assert words in capsys.readouterr().err


def test_a_folder_without_runs_is_not_evaluated(tmp_path, capsys):
    assert main(["evaluate", str(tmp_path)]) == Exit.USAGE
    assert "not a folder of `laescan train`" in capsys.readouterr().err


# ---------------------------------------------------------------- forged


@pytest.fixture(scope="module")
def forged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forged")
    arguments = {"seen": ("attribute",), "unseen": ("inpaint",), "pairs": PAIRS, "folder": folder}
    return forged_task("attributes", portraits(), **arguments), arguments


def test_a_forgery_is_its_original_but_for_the_mask(forged):
    data, _ = forged
    reals = {item.name: item for item in data.seen.train if item.is_real}
    fakes = [item for item in data.seen.train if not item.is_real]
    assert len(fakes) == len(reals) == PAIRS["train"]
    for fake in fakes:
        differs = np.abs(fake.crop().astype(int) - reals[fake.source].crop()).mean(2)
        mask = fake.mask()
        assert mask.max() > 0.2
        assert differs[mask > 0.5].mean() > 5 * differs[mask == 0].mean() if (mask > 0.5).any() else True


def test_people_stay_in_their_split(forged):
    data, _ = forged
    for split in ("train", "val", "test"):
        assert {split_of(item.identity) for item in getattr(data.seen, split)} == {split}
    assert {split_of(item.identity) for item in data.unseen.measured} == {"test"}
    assert data.unseen.families == ("inpaint",)


def test_what_is_forged_is_kept(forged, monkeypatch):
    data, arguments = forged
    monkeypatch.setattr("scanner.training.forged._forge_all", None)
    again = forged_task("attributes", portraits(), **arguments)
    assert [item.name for item in again.seen.train] == [item.name for item in data.seen.train]
    assert (again.seen.val[1].crop() == data.seen.val[1].crop()).all()


def test_too_few_people_are_told_apart_from_too_few_photographs(tmp_path):
    arguments = {"seen": ("attribute",), "unseen": ("swap",), "pairs": PAIRS}
    with pytest.raises(ValueError, match="no photograph falls to val, test"):
        forged_task("attributes", portraits()[:2], folder=tmp_path / "a", **arguments)
    with pytest.raises(ValueError, match="no visible swap came out"):
        forged_task("face-swap", portraits(), folder=tmp_path / "b", **arguments)


def test_inpainting_takes_any_photograph_in_tiles(tmp_path):
    (folder := tmp_path / "photographs").mkdir()
    for picture in PICTURES:
        (folder / picture.name).symlink_to(picture)
    scenes = photographs_of(folder, "inpainting", cache=tmp_path / "scenes.npz")
    assert len(scenes) == 5, "one is smaller than the square that is forged in"
    assert len({scene.canvas.shape for scene in scenes}) == 1
    again = photographs_of(folder, "inpainting", cache=tmp_path / "scenes.npz")
    assert [scene.identity for scene in again] == [scene.identity for scene in scenes]
    small = {"train": 2, "val": 1, "test": 1}
    data = forged_task("inpainting", scenes, seen=("telea",), unseen=("patch_copy",), pairs=small, folder=tmp_path)
    assert data.unseen.measured[1].crop().shape == (256, 256, 3)
    assert data.unseen.measured[1].mask().max() == 1


def test_a_folder_without_faces_is_no_source(tmp_path):
    with pytest.raises(ValueError, match="no photograph with a face"):
        photographs_of(tmp_path, "face-swap", cache=tmp_path / "cache.npz")


def test_faces_are_looked_for_once(tmp_path, monkeypatch):
    save(portraits(), tmp_path / "cache.npz")
    monkeypatch.setattr("scanner.training.forged.from_files", None)
    assert len(photographs_of(MEDIA, "attributes", cache=tmp_path / "cache.npz")) == 6
    assert [p.identity for p in photographs_of(tmp_path / "cache.npz", "attributes", cache=tmp_path / "x")] == [
        p.identity for p in map(replace, portraits())
    ]
