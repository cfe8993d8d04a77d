"""Two stages over arms and seeds: what it leaves, what it never opens, and that a kill changes nothing."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from exhibits import SIDE, pairs, seen_set

from scanner.training import protocol
from scanner.training.arms import ARMS, SMOKE
from scanner.training.batches import Epoch
from scanner.training.candidates import Source, read_masks, write_mask
from scanner.training.data import Sample
from scanner.training.methods import LocalityAware
from scanner.training.protocol import MasksWanted, Plan, arm_folder, load_arm, run
from scanner.training.stage import Stage

TRAIN = 18  # pairs: 3 % of 36 images are one mask
PLAN = Plan("inpainting", ("rough",), ("grainy",), ("lae", "lae-random"), 1, scale=replace(SMOKE, epochs_1=2))
STRONG = replace(PLAN, arms=("lae-strong",))


@pytest.fixture(autouse=True, scope="module")  # as `finished`, which comes after it
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    run(PLAN, seen_set(TRAIN), folder)
    run(replace(PLAN, arms=(*PLAN.arms, "lae-strong")), seen_set(TRAIN), folder)  # more arms may join
    return folder


def weights_of(folder, arm, seed=0):
    return torch.load(arm_folder(folder, arm, seed) / "best.pt", weights_only=True)


def assert_same(one, other):
    torch.testing.assert_close(one, other, atol=0, rtol=0)


# ---------------------------------------------------------------- what it leaves


def test_every_arm_leaves_weights_a_log_and_a_marker(finished):
    for arm in (*PLAN.arms, "lae-strong"):
        folder = arm_folder(finished, arm, 0)
        assert json.loads((folder / "done").read_text())["epochs"] == SMOKE.epochs_2
        (line,) = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
        assert {"epoch", "latent", "attention", "latent_candidates", "val_accuracy", "val_auc"} <= set(line)
        assert load_arm(PLAN, finished, arm, 0).score(torch.rand(1, 3, SIDE, SIDE)).shape == (1,)
    assert not list(finished.rglob("*.tmp"))


def test_arms_that_differ_in_masks_share_stage_one(finished):
    stages = sorted(path.name for path in (finished / "stage1").iterdir())
    assert len(stages) == 2, "lae and lae-random one, lae-strong another"
    logged = [len((finished / "stage1" / name / "log.jsonl").read_text().splitlines()) for name in stages]
    assert all(1 <= epochs <= 2 for epochs in logged)


def test_the_candidates_have_masks_in_the_form_that_people_draw(finished):
    (masked,) = read_masks(arm_folder(finished, "lae", 0) / "candidates")
    assert masked.source is Source.AUTOMATIC
    assert masked.sample.mask.sum() == pytest.approx(96 * 96)
    (name,) = json.loads((arm_folder(finished, "lae", 0) / "candidates" / "items.json").read_text())
    assert name.startswith("rough/")


def test_what_is_finished_is_not_trained_again(finished, monkeypatch):
    def never(_stage):
        raise AssertionError

    monkeypatch.setattr(Stage, "_live_an_epoch", never)
    run(replace(PLAN, arms=("lae-strong", *PLAN.arms)), seen_set(TRAIN), finished)


def test_another_plan_needs_another_folder(finished):
    for other in (replace(PLAN, seen=("grainy",)), replace(PLAN, scale=SMOKE), replace(PLAN, masks="human")):
        with pytest.raises(ValueError, match="another plan"):
            run(other, seen_set(TRAIN), finished)
    with pytest.raises(ValueError, match="no arm best; there are lae-latent"):
        run(replace(PLAN, arms=("best",)), seen_set(TRAIN), finished)


def test_the_seed_decides(finished, tmp_path):
    run(replace(STRONG, seeds=2), seen_set(TRAIN), tmp_path)
    assert_same(weights_of(tmp_path, "lae-strong"), weights_of(finished, "lae-strong"))
    zero, one = (weights_of(tmp_path, "lae-strong", seed)["lae.encoder.fc.weight"] for seed in (0, 1))
    assert (zero != one).any()


# ---------------------------------------------------------------- a kill at any point


class Killed(BaseException):
    """Nothing may catch it."""


@pytest.mark.parametrize("step", [2, 7, 12], ids=["first epoch", "second epoch", "stage 2"])
def test_a_run_that_was_killed_ends_as_if_it_had_not(finished, tmp_path, monkeypatch, step):
    steps, losses = [], LocalityAware.losses

    def mortal(method, batch):
        steps.append(1)
        if len(steps) == step:
            raise Killed
        return losses(method, batch)

    monkeypatch.setattr(LocalityAware, "losses", mortal)
    with pytest.raises(Killed):
        run(STRONG, seen_set(TRAIN), tmp_path)
    assert not (arm_folder(tmp_path, "lae-strong", 0) / "done").exists()
    run(STRONG, seen_set(TRAIN), tmp_path)
    assert_same(weights_of(tmp_path, "lae-strong"), weights_of(finished, "lae-strong"))


@pytest.mark.parametrize("where", ["write_mask", "write_candidates"])
def test_a_kill_while_candidates_are_written_leaves_none_half_done(finished, tmp_path, monkeypatch, where):
    def die(*_arguments, **_more):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(protocol, where, die)
        with pytest.raises(Killed):
            run(STRONG, seen_set(TRAIN), tmp_path)
    run(STRONG, seen_set(TRAIN), tmp_path)
    assert len(read_masks(arm_folder(tmp_path, "lae-strong", 0) / "candidates")) == 1
    assert_same(weights_of(tmp_path, "lae-strong"), weights_of(finished, "lae-strong"))


# ---------------------------------------------------------------- what it opens


def unreadable():
    raise AssertionError


def test_test_pictures_are_never_opened(tmp_path):
    seen = seen_set(TRAIN)
    hidden = tuple(replace(item, crop=unreadable, mask=unreadable) for item in seen.test)
    run(replace(STRONG, scale=replace(PLAN.scale, epochs_1=1)), replace(seen, test=hidden), tmp_path)


def test_no_mask_is_opened_before_it_is_asked_for(tmp_path):
    opened = []

    def watched(item):
        def mask():
            opened.append(item.name)
            return item.mask()

        return item if item.is_real else replace(item, mask=mask)

    seen = seen_set(TRAIN)
    seen = replace(seen, **{name: tuple(map(watched, getattr(seen, name))) for name in ("train", "val", "test")})
    run(replace(STRONG, arms=("lae-latent", "lae-strong")), seen, tmp_path)
    assert len(set(opened)) == 1, "3 % of 36 images, none for an arm without masks"


# ---------------------------------------------------------------- people draw


def test_stage_two_waits_for_people(tmp_path):
    plan = replace(STRONG, masks="human", scale=replace(PLAN.scale, epochs_1=1))
    with pytest.raises(MasksWanted, match="laescan annotate") as wanted:
        run(plan, seen_set(TRAIN), tmp_path)
    (folder,) = wanted.value.folders
    assert read_masks(folder) == []
    drawn = np.zeros((SIDE, SIDE), np.float32)
    drawn[:128] = 1
    write_mask(folder, "0001", drawn, Source.HUMAN)
    run(plan, seen_set(TRAIN), tmp_path)
    (masked,) = read_masks(folder)
    assert masked.source is Source.HUMAN
    assert (masked.sample.mask == drawn).all()
    assert (arm_folder(tmp_path, "lae-strong", 0) / "done").exists()


def test_without_a_known_mask_the_difference_to_the_original_is_one(tmp_path):
    seen = seen_set(TRAIN)
    bare = replace(seen, train=tuple(replace(item, mask=None) for item in seen.train))
    run(replace(STRONG, scale=replace(PLAN.scale, epochs_1=1)), bare, tmp_path)
    (masked,) = read_masks(arm_folder(tmp_path, "lae-strong", 0) / "candidates")
    assert 0.8 * 96 * 96 < masked.sample.mask.sum() < 1.5 * 96 * 96


# ---------------------------------------------------------------- batches


def test_an_epoch_shows_every_fake_once_beside_its_own_original():
    epoch = Epoch(pairs(range(9)), pairs=4, key=(0, 1, 2))
    assert len(epoch) == 2, "a single pair left over is no batch"
    fakes = [fake.name for _, fakes in epoch.steps for fake in fakes]
    assert len(set(fakes)) == len(fakes) == 8
    assert all(real.name == fake.source for step in epoch.steps for real, fake in zip(*step, strict=True))
    x, mask, real, ordinary = epoch[0]
    assert (x.shape, mask.shape, ordinary) == ((8, 3, SIDE, SIDE), (8, 64, 64), 8)
    assert real.tolist() == [1] * 4 + [0] * 4
    assert mask.max() == 0, "no mask but a candidate's"


def test_an_epoch_is_decided_by_its_key():
    def order(key):
        return [fake.name for _, fakes in Epoch(pairs(range(20)), pairs=4, key=key).steps for fake in fakes]

    assert order((0, 1, 2)) == order((0, 1, 2))
    assert len({tuple(order(key)) for key in ((0, 1, 2), (0, 1, 3), (0, 2, 2), (1, 1, 2))}) == 4


def test_candidates_join_every_batch_in_turn():
    samples = [
        Sample(np.full((SIDE, SIDE, 3), n, np.uint8), np.ones((64, 64), np.float32), "rough", "") for n in range(3)
    ]
    epoch = Epoch(pairs(range(8)), pairs=4, key=(0, 2, 0), candidates=(samples, 2))
    shown = []
    for step in range(len(epoch)):
        x, mask, real, ordinary = epoch[step]
        assert (len(x), ordinary) == (10, 8)
        assert mask[8:].min() == 1
        assert real[8:].max() == 0
        shown += x[8:, 0, 0, 0].tolist()
    assert sorted(shown[:3]) == [0, 1, 2], "each once before any comes again"


def test_a_pair_lives_the_same_life():
    same = [replace(item, crop=pairs([1])[0].crop) for item in pairs(range(4))]
    x, _, _, n = Epoch(same, pairs=4, key=(0, 1, 0), augment=True)[0]
    assert (x[: n // 2] == x[n // 2 :]).all()
    assert (x[0] != x[1]).any()


def test_a_training_set_needs_both_kinds():
    with pytest.raises(ValueError, match="lacks one of them"):
        Epoch([item for item in pairs(range(4)) if item.is_real], pairs=2, key=(0,))


def test_every_fake_has_a_mask_in_the_upper_bound(tmp_path):
    plan = replace(PLAN, arms=("lae-all",), scale=replace(PLAN.scale, epochs_1=1))
    assert ARMS["lae-all"].masks == 1
    run(plan, seen_set(4), tmp_path)
    line = json.loads((arm_folder(tmp_path, "lae-all", 0) / "log.jsonl").read_text())
    assert line["attention"] > 0
    assert not (arm_folder(tmp_path, "lae-all", 0) / "candidates").exists()
