"""A data folder becomes portraits: the right faces, each with an identity that a split can keep apart."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from scanner.training import portraits
from scanner.training.portraits import CANVAS_PX
from scanner.training.prepare import SIGNERS, main, prepare

MEDIA = Path(__file__).parent / "media"
CLIPS = Path(__file__).parents[2] / "shared" / "data" / "video"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "faces" / "fellows"
    folder.mkdir(parents=True)
    for name in ("fellow_1.jpg", "fellow_2.jpg"):
        shutil.copy(MEDIA / name, folder)
    return tmp_path


def test_photographs_become_portraits_with_their_source_and_identity(data: Path) -> None:
    found = prepare(data)
    assert [(p.source, p.identity) for p in found] == [("fellows", "fellow_1"), ("fellows", "fellow_2")]
    assert all(p.canvas.shape == (CANVAS_PX, CANVAS_PX, 3) for p in found)


def test_a_picture_without_a_face_is_left_out(data: Path) -> None:
    from PIL import Image  # noqa: PLC0415 - only this test paints

    Image.new("RGB", (200, 200), "grey").save(data / "faces" / "fellows" / "wall.jpg")
    assert {p.identity for p in prepare(data)} == {"fellow_1", "fellow_2"}


def test_the_command_writes_what_training_loads(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "new" / "portraits.npz"
    monkeypatch.setattr("sys.argv", ["prepare", str(data), "--out", str(out)])
    main()
    assert np.array_equal(portraits.load(out)[0].canvas, prepare(data)[0].canvas)


@pytest.mark.parametrize("clip", sorted(CLIPS.glob("thanks.mkv")), ids=lambda p: p.name)
def test_clips_give_one_identity_a_person(data: Path, clip: Path) -> None:
    (data / "video").mkdir()
    shutil.copy(clip, data / "video")
    identities = {p.identity for p in prepare(data) if p.source == "video"}
    assert identities == {f"signer_{SIGNERS[clip.stem]}"}
