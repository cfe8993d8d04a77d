"""Small generators learn, are kept and read again, and forge inside their masks."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sitters import portraits
from test_scenes import photos

from scanner.training import datasets, forgers, generators, scenes
from scanner.training.generators import FillConfig, Filler, SwapConfig, Swapper, kept, train_filler, train_swapper

PEOPLE = ("fellow_1", "fellow_3")
SWAP = SwapConfig(PEOPLE, size=64, width=8, code=32, steps=40, batch=4)
FILL = FillConfig(size=64, width=8, steps=25, batch=4)


@pytest.fixture(scope="module")
def swapper():
    return train_swapper(portraits(), SWAP)


@pytest.fixture(scope="module")
def filler():
    return train_filler(photos(), FILL)


def loss_of(model, person):
    canvas = next(p.canvas for p in portraits() if p.identity == person)
    x = generators.tensor([generators.face_of(canvas, SWAP.size)])
    with torch.inference_mode():
        return float((model(x, person) - x).abs().mean())


def test_people_of_the_tests_are_there():
    assert set(PEOPLE) <= {p.identity for p in portraits()}


def test_a_swapper_learns_each_face_and_its_decoders_differ(swapper):
    torch.manual_seed(0)
    fresh = Swapper(SWAP).eval()
    assert all(loss_of(swapper, person) < 0.8 * loss_of(fresh, person) for person in PEOPLE)
    x = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        one, other = (swapper(x, person) for person in PEOPLE)
    assert one.shape == x.shape
    assert (one - other).abs().mean() > 0.001


def test_a_swapper_of_128_px_fits_together():
    with torch.inference_mode():
        assert (
            Swapper(SwapConfig(PEOPLE, size=128, width=4, code=8))(torch.rand(1, 3, 128, 128), PEOPLE[0]).shape[-1]
            == 128
        )


def test_nobody_can_be_learnt_without_a_picture():
    with pytest.raises(ValueError, match="no portrait of nobody"):
        train_swapper(portraits(), SwapConfig(("fellow_1", "nobody")))


@pytest.mark.parametrize("kind", ["swapper", "filler"])
def test_what_is_kept_is_read_again(kind, request, tmp_path):
    model = request.getfixturevalue(kind)
    generators.keep(model, tmp_path / "model.safetensors")
    again = kept(tmp_path / "model.safetensors")
    assert again.config == model.config
    assert all((a == b).all() for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no generator of ours"):
        kept(tmp_path / "other.safetensors")


def test_a_filler_leaves_what_is_known_alone_and_beats_an_untrained_one(filler):
    rng = np.random.default_rng(5)
    x, hole = generators._with_holes([p.canvas for p in photos()], rng, FILL.size)
    torch.manual_seed(0)
    with torch.inference_mode():
        ours, fresh = (m(x, hole) for m in (filler, Filler(FILL)))
    assert ((ours - x).abs() * (1 - hole)).max() < 1e-6
    assert ((ours - x).abs() * hole).sum() < ((fresh - x).abs() * hole).sum()


def test_forgeries_change_their_mask_and_nothing_else(swapper, filler):
    made = [
        *forgers.forgeries(swapper, portraits(), np.random.default_rng(0)),
        *forgers.forgeries(filler, photos(), np.random.default_rng(0)),
    ]
    assert [f.family for _, f in made] == ["autoencoder_swap"] * 2 + ["painted"] * 3
    for original, forgery in made:
        change = np.abs(forgery.picture.astype(int) - original.canvas).max(2)
        assert change[forgery.mask == 0].max() == 0
        assert change[forgery.mask > 0.9].mean() > 3
        assert 0.003 < forgery.mask.mean() < 0.4


def test_a_swapper_refuses_strangers(swapper):
    rng = np.random.default_rng(0)
    stranger = next(p for p in portraits() if p.identity not in PEOPLE)
    with pytest.raises(ValueError, match="cannot draw"):
        forgers.swapping(swapper)(portraits()[0], stranger, rng)


def test_an_empty_hole_paints_nothing(filler):
    picture = photos()[0].canvas
    assert (forgers.paint(filler, picture, np.zeros(picture.shape[:2], np.float32)) == picture).all()


def test_what_is_written_is_a_data_set(swapper, filler, tmp_path):
    rng = np.random.default_rng(0)
    assert forgers.write(forgers.forgeries(swapper, portraits(), rng), tmp_path / "faces") == 2
    assert forgers.write(forgers.forgeries(filler, photos(), rng), tmp_path / "scenes") == 3
    for folder, method, count in (("faces", "autoencoder_swap", 2), ("scenes", "painted", 3)):
        found = datasets.layout_of(tmp_path / folder).clips(tmp_path / folder)
        fakes = [clip for clip in found if clip.family == method]
        assert len(fakes) == count
        assert len(found) == 2 * count
        assert all(clip.mask and clip.original for clip in fakes)


def test_holes_of_the_generator_are_those_of_the_scenes():
    _, hole = generators._with_holes([photos()[0].canvas], np.random.default_rng(0), 64)
    assert set(hole.unique().tolist()) == {0, 1}
    assert scenes.SIDE_PX > 128
