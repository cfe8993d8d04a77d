"""From a run to a checkpoint with honest numbers: thresholds from validation and seen families, nothing else."""

import json
import shutil
import sys
from dataclasses import replace

import numpy as np
import pytest
from sitters import PICTURES, TINY, of_split, portraits

from scanner.detection.checkpoint import load_checkpoint, save_checkpoint
from scanner.training import evaluate as evaluation
from scanner.training import subjects
from scanner.training.calibrate import logistic
from scanner.training.data import fixed
from scanner.training.evaluate import evaluate, false_alarms, load_run, share_manipulated
from scanner.training.portraits import split_of
from scanner.training.subjects import Faces
from scanner.training.train import TrainConfig, score, train
from scanner.verdict import Calibration

CONFIG = TrainConfig(
    families=("attribute",), steps=1, pairs=2, workers=0, val_per_family=1, report_steps=100, model=TINY, ema=0.0
)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The photographs as the loaders expect them: london_1 (test), london_2 (val), london_3 (train)."""
    root = tmp_path_factory.mktemp("photos")
    (root / "london_neutral").mkdir()
    for path in PICTURES:
        if path.stem.startswith("london"):
            shutil.copy(path, root / "london_neutral")
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    train(portraits(), CONFIG, folder)
    return folder


def pointed(encoder):
    """The encoder with its halves the right way round, which one step of training leaves to chance."""
    samples = fixed(of_split("val"), CONFIG.families, per_family=3, seed=11)
    slope, _ = logistic(score(encoder, samples["real"])[0], score(encoder, samples["attribute"])[0])
    if slope < 0:
        encoder.fc.weight.data = encoder.fc.weight.data.roll(CONFIG.model.latent // 2, 0)
    return encoder


def untouched():
    return [replace(portrait, source="london_neutral") for portrait in portraits()]


@pytest.fixture
def few_reencodings(monkeypatch):
    names = ("untouched", "jpeg 50", "resize 0.5")
    few = {name: subjects.REENCODINGS[name] for name in names}
    for module in (subjects, evaluation):
        monkeypatch.setattr(module, "REENCODINGS", few)


def test_an_evaluated_run_becomes_a_checkpoint_that_detection_loads(run, photos, few_reencodings, tmp_path):
    encoder, config = load_run(run)
    assert config == CONFIG
    calibration, card = evaluate(pointed(encoder), config, untouched(), Faces(photos), ["warp"], per_family=3)
    assert (card["families_seen"], card["families_unseen"]) == (["attribute"], ["warp"])
    for split in ("val", "test"):
        rows = card[split]["families"]
        assert {family: row["seen"] for family, row in rows.items()} == {"attribute": True, "warp": False}
        assert all(row["n"] == 3 and 0 <= row["auc"] <= 1 for row in rows.values())
        assert all(0 <= row["auc_own"] <= 1 for row in rows.values())
        assert card[split]["auc_seen"] == rows["attribute"]["auc"]
        assert card[split]["false_alarms"]["all"]["n"] == 3
        assert set(card[split]["flips"]["treatments"]) <= {"jpeg 50", "resize 0.5"}
        assert card[split]["shortcuts"]["warm tint"]["n"] == 1
    save_checkpoint(tmp_path / "face.safetensors", encoder, calibration, card)
    loaded = load_checkpoint(tmp_path / "face.safetensors")
    assert loaded.calibration == calibration
    assert {name: loaded.card[name] for name in card} == json.loads(json.dumps(card))


def test_thresholds_come_from_validation_and_seen_families_only(run, photos, few_reencodings, monkeypatch):
    drawn, photographed, calibrated = [], [], []
    true_fixed, true_reencoded, true_calibrate = evaluation.fixed, subjects.reencoded, evaluation.calibrate

    def fixed(given, families, **choices):
        drawn.append(({split_of(p.identity) for p in given}, tuple(families)))
        return true_fixed(given, families, **choices)

    def reencoded(paths, detector):
        photographed.append([path.stem for path in paths])
        return true_reencoded(paths, detector)

    def calibrate(*scores):
        calibrated.append((list(drawn), list(photographed)))
        return true_calibrate(*scores)

    for module, function in ((evaluation, fixed), (subjects, reencoded), (evaluation, calibrate)):
        monkeypatch.setattr(module, function.__name__, function)
    encoder, config = load_run(run)
    evaluate(pointed(encoder), config, untouched(), Faces(photos), ["warp"], per_family=3)
    assert calibrated == [([({"val"}, ("attribute",))], [["london_2"]])]


def test_a_family_cannot_be_seen_and_unseen(run, photos, tmp_path, monkeypatch, capsys):
    encoder, config = load_run(run)
    with pytest.raises(ValueError, match="attribute was trained on"):
        evaluate(encoder, config, portraits(), Faces(photos), ["warp", "attribute"])
    out = tmp_path / "face.safetensors"
    paths = ["--run", str(run), "--portraits", "none.npz", "--photos", str(photos), "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["evaluate", *paths, "--unseen", "attribute"])
    with pytest.raises(SystemExit):
        evaluation.main()
    assert "attribute was trained on: it is not unseen" in capsys.readouterr().err
    assert not out.exists()


def test_the_share_called_manipulated_is_what_reaches_the_threshold():
    calibration = Calibration(slope=2.0, intercept=0.0, authentic=0.2, manipulated=0.5)
    assert share_manipulated(np.array([-1.0, -0.1, 0.0, 3.0]), calibration) == 0.5


def test_false_alarms_come_with_their_interval():
    never = Calibration(slope=1e-6, intercept=-5.0, authentic=0.2, manipulated=0.9)
    rows = false_alarms({"one": np.array([3.0]), "other": np.array([1.0, 2.0, 3.0])}, never)
    assert {name: row["n"] for name, row in rows.items()} == {"one": 1, "other": 3, "all": 4}
    assert rows["all"]["share"] == rows["all"]["low"] == 0
    assert rows["all"]["high"] == pytest.approx(0.49, abs=0.01)
