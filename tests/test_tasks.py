"""What is unseen cannot reach a trainer: not by type, not by family, not by identity (notes on the LAE, 8.9, 7)."""

from dataclasses import replace

import numpy as np
import pytest
from exhibits import pair, pairs, seen_set, task

from scanner.training import families, scenes
from scanner.training.arms import SMOKE
from scanner.training.protocol import Plan, run
from scanner.training.tasks import OWN, Item, SeenSet, TaskData, UnseenSet, at_size, task_name

PLAN = Plan("inpainting", ("rough",), ("grainy",), ("lae-latent",), 1, scale=SMOKE)


def test_the_trainer_takes_a_seen_set_and_nothing_else(tmp_path):
    data = task()
    for other in (data.unseen, data, data.unseen.measured):
        with pytest.raises(TypeError, match="what is unseen stays unseen"):
            run(PLAN, other, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_unseen_item_does_not_fit_into_a_seen_set():
    seen = seen_set()
    for place in ("train", "val", "test"):
        with pytest.raises(ValueError, match=f"seen {place} holds grainy, which it does not name"):
            replace(seen, **{place: pairs([2000], "grainy")})
    with pytest.raises(TypeError, match="tuple of items"):
        replace(seen, train=UnseenSet(("grainy",), pairs([2000], "grainy")))
    with pytest.raises(TypeError, match="tuple of items"):
        replace(seen, train=("grainy/2000",))


def test_a_family_is_seen_or_unseen():
    data = task()
    named = SeenSet(("rough", "grainy"), pairs([1], "grainy"), pairs([2]), pairs([3]))
    with pytest.raises(ValueError, match="grainy cannot be both"):
        TaskData("inpainting", named, data.unseen, "", "")


def test_nobody_is_in_two_splits_nor_both_trained_on_and_measured():
    seen, data = seen_set(), task()
    with pytest.raises(ValueError, match="seen train and val share 1 identities"):
        replace(seen, val=pairs([3]))
    for place in ("train", "val"):
        known = replace(seen, **{place: pairs([1000])})
        with pytest.raises(ValueError, match=f"seen {place} and unseen share 1 identities"):
            replace(data, seen=known)


def test_names_are_unique():
    with pytest.raises(ValueError, match="two items of one name"):
        UnseenSet(("grainy",), pair(1, "grainy") * 2)


@pytest.mark.parametrize("name", OWN)
def test_our_own_families_exist_and_are_apart(name):
    pairing = OWN[task_name(name)]
    known = scenes.FAMILIES if name == "inpainting" else families.FAMILIES
    assert {*pairing.seen, *pairing.unseen} <= set(known)
    assert not {*pairing.seen} & {*pairing.unseen}


def test_there_are_three_tasks():
    with pytest.raises(ValueError, match="no task 'faces'; there are face-swap, attributes, inpainting"):
        task_name("faces")


def test_a_smaller_task_shows_the_same_crops_and_masks_averaged_down():
    rng = np.random.default_rng(0)
    crop, mask = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8), np.zeros((8, 8), np.float32)
    mask[:4, :4] = 1
    real = Item("r", "real", "a", "a", crop=lambda: crop)
    fake = Item("f", "warp", "a", "a", crop=lambda: crop, mask=lambda: mask, source="r")
    others = [replace(item, name=item.name + n, identity=n, group=n) for n in "bcd" for item in (real, fake)]
    hidden = tuple(replace(item, family="swap" if item.mask else "real") for item in others[4:])
    data = TaskData(
        "face-swap",
        SeenSet(("warp",), (real, fake), tuple(others[:2]), tuple(others[2:4])),
        UnseenSet(("swap",), hidden),
        origin="",
        masks="",
    )
    small = at_size(data, 4)
    assert small.seen.train[0].mask is None
    assert small.seen.train[1].crop().shape == (4, 4, 3)
    assert np.abs(small.unseen.measured[1].crop() - crop.reshape(4, 2, 4, 2, 3).mean((1, 3))).max() <= 0.5
    assert (small.seen.val[1].mask() == [[1, 1, 0, 0]] * 2 + [[0] * 4] * 2).all()
