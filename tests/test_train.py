"""The loop: learns, stops, goes on after a kill, keeps the averaged encoder, sees only what it may see."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sitters import TINY, of_split, portraits

from scanner.training import data, train
from scanner.training.data import fixed
from scanner.training.portraits import save, split_of
from scanner.training.train import Run, TrainConfig, rate_at, score, validate

CONFIG = TrainConfig(
    families=("attribute",),
    steps=4,
    pairs=2,
    warmup_steps=2,
    attention_from=2,
    easy_steps=0,
    report_steps=2,
    val_steps=4,
    val_per_family=2,
    workers=0,
    model=TINY,
)


def tensors_of(folder):
    state = torch.load(folder / "state.pt", weights_only=True)
    return state["step"], {**state["model"], **{f"average.{k}": v for k, v in state["average"].items()}}


def assert_same(one, two):
    assert one[0] == two[0]
    torch.testing.assert_close(one[1], two[1], atol=0, rtol=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train.train(portraits(), CONFIG, folder), folder


def test_a_run_leaves_its_state_its_config_and_a_log(trained):
    _, folder = trained
    assert tensors_of(folder)[0] == 4
    assert json.loads((folder / "config.json").read_text())["families"] == ["attribute"]
    first, last = (json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines())
    assert (first["step"], last["step"]) == (2, 4)
    assert first["attention"] == 0 < last["attention"]  # from step 2 on
    assert {"latent", "decision", "local", "pixel"} <= set(last)
    assert 0 <= last["auc_mean"] <= 1
    assert last["auc_attribute"] == last["auc_mean"]
    assert not list(folder.glob("*.tmp"))


def test_the_averaged_encoder_is_the_one_kept(trained):
    encoder, folder = trained
    step, tensors = tensors_of(folder)
    assert not encoder.training
    kept = encoder.fc.weight
    assert (kept == tensors["average.module.fc.weight"]).all()
    assert (kept != tensors["encoder.fc.weight"]).any()
    assert tensors["average.n_averaged"] == step


def test_a_finished_run_is_not_trained_on(trained):
    _, folder = trained
    before = tensors_of(folder)
    train.train(portraits(), CONFIG, folder)
    assert_same(tensors_of(folder), before)


def test_the_same_seed_trains_the_same(trained, tmp_path):
    train.train(portraits(), CONFIG, tmp_path)
    assert_same(tensors_of(tmp_path), tensors_of(trained[1]))


class Killed(BaseException):
    """Nothing in the loop may catch it."""


def test_a_run_stopped_between_checkpoints_goes_on_from_the_last_one(tmp_path, monkeypatch):
    def die_at_three(run, *batch):
        if run.step == 3:
            raise Killed
        return update(run, *batch)

    update = Run.update
    for folder in (tmp_path / "one", tmp_path / "two"):
        monkeypatch.setattr(Run, "update", die_at_three)
        with pytest.raises(Killed):
            train.train(portraits(), CONFIG, folder)
        monkeypatch.setattr(Run, "update", update)
        assert tensors_of(folder)[0] == 2
        train.train(portraits(), CONFIG, folder)
        assert tensors_of(folder)[0] == CONFIG.steps
    assert_same(tensors_of(tmp_path / "one"), tensors_of(tmp_path / "two"))


def test_what_is_resumed_is_what_was_saved(trained, tmp_path):
    _, folder = trained
    resumed = Run(CONFIG, folder)
    resumed.resume()
    resumed.folder = tmp_path
    resumed.save()
    assert_same(tensors_of(tmp_path), tensors_of(folder))
    momenta = [torch.load(f / "state.pt", weights_only=True)["optimizer"]["state"] for f in (folder, tmp_path)]
    torch.testing.assert_close(*momenta, atol=0, rtol=0)


def test_a_killed_process_leaves_a_state_to_go_on_from(tmp_path):
    save(portraits(), tmp_path / "portraits.npz")
    run = tmp_path / "run"
    arguments = ["--portraits", str(tmp_path / "portraits.npz"), "--run", str(run), "--families", "attribute"]
    settings = ["steps=100000", "pairs=1", "workers=0", "report_steps=1", "val_steps=100000", "val_per_family=1"]
    command = [sys.executable, "-m", "scanner.training.train", *arguments]
    child = subprocess.Popen([*command, *(part for s in settings for part in ("--set", s))], stderr=subprocess.DEVNULL)
    try:
        while not (run / "state.pt").exists():
            assert child.poll() is None, "the trainer has ended by itself"
            time.sleep(0.05)
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    resumed = Run(TrainConfig(families=("attribute",)), run)
    resumed.resume()
    assert resumed.step >= 1


def test_only_training_identities_are_trained_on_and_only_validation_ones_checked(monkeypatch, tmp_path):
    seen = {"pairs": set(), "fixed": set()}

    class Watched(data.Pairs):
        def __init__(self, given, *rest, **choices):
            seen["pairs"] |= {p.identity for p in given}
            super().__init__(given, *rest, **choices)

    def watched(given, *rest, **choices):
        seen["fixed"] |= {p.identity for p in given}
        return fixed(given, *rest, **choices)

    monkeypatch.setattr(train, "Pairs", Watched)
    monkeypatch.setattr(train, "fixed", watched)
    train.train(portraits(), replace(CONFIG, steps=1), tmp_path)
    assert {split_of(i) for i in seen["pairs"]} == {"train"}
    assert {split_of(i) for i in seen["fixed"]} == {"val"}
    assert len(seen["pairs"]) == 4


def test_only_the_families_of_the_config_are_ever_forged(monkeypatch, tmp_path):
    forged, true_forge = set(), data.forged

    def watched(portrait, donor, family, rng):
        forged.add(family)
        return true_forge(portrait, donor, family, rng)

    monkeypatch.setattr(data, "forged", watched)
    train.train(portraits(), replace(CONFIG, families=("attribute", "warp"), pairs=6, steps=1), tmp_path)
    assert forged == {"attribute", "warp"}


def test_a_resumed_run_may_not_disown_a_family_that_it_has_seen(trained):
    _, folder = trained
    before = (folder / "config.json").read_text()
    with pytest.raises(ValueError, match="has learnt from attribute"):
        train.train(portraits(), replace(CONFIG, families=("warp",)), folder)
    assert (folder / "config.json").read_text() == before


def test_the_rate_warms_up_and_falls_to_a_fiftieth():
    config = TrainConfig(families=(), steps=100, warmup_steps=10, lr=1.0)
    rates = [rate_at(step, config) for step in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates.index(max(rates)) in {9, 10}
    assert max(rates) == pytest.approx(1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.02)


def test_what_is_plain_to_see_is_learnt_in_a_few_steps():
    run = Run(replace(CONFIG, steps=100, lr=1e-2, pixel_weight=0.0, attention_weight=0.0), None)
    x = torch.randint(100, 150, (8, 3, 256, 256), dtype=torch.uint8)
    x[4:, :, 64:128, 64:128] = x[4:, :, 64:128, 64:128] // 2  # forged: a dark square
    mask = torch.zeros(8, 64, 64)
    mask[4:, 16:32, 16:32] = 1
    losses = [run.update(x, mask, torch.tensor([1.0] * 4 + [0.0] * 4)) for _ in range(15)]
    assert losses[-1]["decision"] < 0.5 * losses[0]["decision"]
    assert losses[-1]["local"] < 0.5 * losses[0]["local"]


def test_scores_do_not_depend_on_the_batch_and_validation_ranks_them(trained):
    encoder, _ = trained
    samples = fixed(of_split("val"), ("attribute",), per_family=3, seed=0)
    raw, maps = score(encoder, samples["attribute"])
    one_by_one, _ = score(encoder, samples["attribute"], batch=1)
    np.testing.assert_allclose(raw, one_by_one, atol=1e-5)
    assert maps.shape == (3, 16, 16)
    assert set(validate(encoder, samples)) == {"attribute", "mean"}


def test_windows_are_the_same_of_both_and_mostly_where_the_forgery_is():
    x = torch.arange(256 * 256).view(1, 1, 256, 256).expand(6, 3, 256, 256).clone()
    x[3:] += torch.tensor([1, 2, 3]).view(3, 1, 1, 1) * 100_000  # each forgery is its original plus a constant
    mask = torch.zeros(6, 64, 64)
    mask[3:, 4:12, 40:60] = 1
    cut, of_mask = train.windows(x, mask, 160, each=2, draws=40)
    assert cut.shape == (12, 3, 160, 160)
    assert of_mask.shape == (12, 40, 40)
    assert of_mask[:6].sum() == 0
    assert (of_mask[6:].sum((1, 2)) > 0.8 * 8 * 20).all()
    for at in range(6):
        difference = (cut[at + 6] - cut[at]).unique()
        assert difference.tolist() == [(at % 3 + 1) * 100_000]
        row, column = divmod(int(cut[at, 0, 0, 0]), 256)
        assert torch.equal(of_mask[at + 6], mask[3, row // 4 : row // 4 + 40, column // 4 : column // 4 + 40])


def test_windows_come_first_and_whole_crops_at_the_end(tmp_path):
    run = Run(replace(CONFIG, steps=4, window_px=128, windows=2, whole_from=0.5), tmp_path)
    seen = []
    run.model.encoder.register_forward_pre_hook(lambda _, given: seen.append(tuple(given[0].shape)))
    x, mask = torch.zeros(4, 3, 256, 256, dtype=torch.uint8), torch.zeros(4, 64, 64)
    for _ in range(4):
        run.update(x, mask, torch.tensor([1.0, 1.0, 0.0, 0.0]))
    assert seen == [(8, 3, 128, 128)] * 2 + [(4, 3, 256, 256)] * 2


def test_a_run_may_begin_with_another_runs_weights_and_says_the_same_at_first(trained, tmp_path):
    _, folder = trained
    before = Run(CONFIG, folder)
    before.resume()
    grown = replace(CONFIG.model, relative=True, blocks=1)
    begun = Run(replace(CONFIG, begin_with=str(folder / "state.pt"), model=grown), tmp_path)
    x = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        one, other = (run.model.encoder.eval()(x) for run in (before, begun))
    torch.testing.assert_close(one.z, other.z, atol=1e-6, rtol=1e-5)
    assert begun.step == 0


def test_a_run_that_begins_with_one_of_its_own_shape_takes_all_of_it(tmp_path):
    grown = replace(CONFIG, model=replace(CONFIG.model, relative=True, blocks=1))
    first, second = tmp_path / "first", tmp_path / "second"
    train.train(portraits(), grown, first)
    begun = Run(replace(grown, begin_with=str(first / "state.pt"), seed=5), second)
    kept = torch.load(first / "state.pt", weights_only=True)["model"]
    torch.testing.assert_close(dict(begun.model.state_dict()), dict(kept), atol=0, rtol=0)


def test_fields_of_the_config_are_set_by_name_and_typos_are_refused():
    config = train.configured(CONFIG, ["steps=9", "lr=1e-4", "lives=wide", "model.relative=true"])
    assert (config.steps, config.lr, config.lives, config.model.relative) == (9, 1e-4, "wide", True)
    assert (config.families, config.model.widths) == (CONFIG.families, CONFIG.model.widths)
    for wrong in ("stepz=9", "steps=many", "model.depth=3"):
        with pytest.raises(ValueError, match=wrong.partition("=")[0].rpartition(".")[2]):
            train.configured(CONFIG, [wrong])
