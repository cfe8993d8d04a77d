"""A training run in, honest numbers and the checkpoint to ship out.

    python -m scanner.training.evaluate --run runs/face --portraits runs/portraits.npz \
        --photos PATH --unseen swap --out FILE
    python -m scanner.training.evaluate --run runs/inpaint --portraits runs/scenes.npz --unseen patch_fill --out FILE

Calibration and thresholds come from validation identities and seen families only.
Test identities and unseen families are measured once the thresholds stand, and decide nothing.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner.detection.checkpoint import save_checkpoint
from scanner.detection.lae import Encoder
from scanner.training import metrics, robustness
from scanner.training.calibrate import calibrate, sigmoid
from scanner.training.data import Sample, fixed
from scanner.training.portraits import Portrait, load
from scanner.training.subjects import REENCODINGS, Faces, Scenes, Subject
from scanner.training.train import Run, TrainConfig, score, split_in
from scanner.verdict import Calibration


@dataclass(frozen=True)
class Scored:
    """The scores of one group of crops, and how well the maps sit on the masks (0 for real ones)."""

    raw: NDArray[np.float64]
    energy_inside: float
    iou: float


def score_group(encoder: Encoder, samples: Sequence[Sample]) -> Scored:
    """Score one family of samples."""
    raw, maps = score(encoder, samples)
    pairs = [
        (m, np.asarray(cv2.resize(s.mask, m.shape[::-1], interpolation=cv2.INTER_AREA), np.float32))
        for m, s in zip(maps, samples, strict=True)
        if s.mask.any()
    ]
    inside = [metrics.energy_inside(m, mask) for m, mask in pairs]
    overlap = [metrics.iou(m, mask) for m, mask in pairs]
    return Scored(raw.astype(np.float64), *(float(np.mean(v)) if v else 0.0 for v in (inside, overlap)))


def family_rows(
    encoder: Encoder, samples: dict[str, list[Sample]], calibration: Calibration, unseen: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Per family: AUC and EER against the reals of the whole set, share called manipulated, map quality.

    `auc_own` is the AUC against the family's own originals alone: some families exist of few people only, whose
    pictures may all score low or high.
    """
    groups = {family: score_group(encoder, group) for family, group in samples.items()}
    real = groups.pop("real").raw
    own = dict(zip(groups, np.split(real, len(groups)), strict=True))  # `fixed` keeps them in this order
    return {
        family: {
            "seen": family not in unseen,
            "n": len(group.raw),
            "auc": round(metrics.auc(real, group.raw), 4),
            "auc_own": round(metrics.auc(own[family], group.raw), 4),
            "eer": round(metrics.eer(real, group.raw), 4),
            "called_manipulated": round(share_manipulated(group.raw, calibration), 4),
            "energy_inside": round(group.energy_inside, 3),
            "iou": round(group.iou, 3),
        }
        for family, group in groups.items()
    }


def pooled_auc(encoder: Encoder, samples: dict[str, list[Sample]], families: Sequence[str]) -> float:
    """AUC of all forgeries of some families together against the reals of the set."""
    real = score(encoder, samples["real"])[0]
    fake = np.concatenate([score(encoder, samples[family])[0] for family in families])
    return round(metrics.auc(real, fake), 4)


def share_manipulated(raw: NDArray[np.float64], calibration: Calibration) -> float:
    """Share of raw scores whose probability reaches the upper threshold."""
    p = sigmoid(calibration.slope * raw + calibration.intercept)
    return float((p >= calibration.manipulated).mean())


def false_alarms(raw: Mapping[str, NDArray[np.float64]], calibration: Calibration) -> dict[str, dict[str, Any]]:
    """Share of real pictures called manipulated, by re-encoding and over all, with its 95 % interval."""
    rows = {}
    for name, scores in {**raw, "all": np.concatenate(list(raw.values()))}.items():
        share = share_manipulated(scores, calibration)
        low, high = metrics.interval(share, len(scores))
        rows[name] = {"n": len(scores), "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
    return rows


def check_unseen(unseen: Sequence[str], config: TrainConfig) -> None:
    """Raise ValueError when a family called unseen was trained on."""
    if seen := set(unseen) & set(config.families):
        msg = f"{', '.join(sorted(seen))} was trained on: it is not unseen"
        raise ValueError(msg)


def evaluate(
    encoder: Encoder,
    config: TrainConfig,
    portraits: Sequence[Portrait],
    subject: Subject,
    unseen: Sequence[str],
    *,
    per_family: int = 100,
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrate on validation, then measure on validation and test; returns the card of the checkpoint.

    Raises ValueError when a family called unseen was trained on.
    """
    check_unseen(unseen, config)
    split = {name: [p for p in portraits if split_in(p, config) == name] for name in ("val", "test")}
    fitted = fixed(split["val"], config.families, per_family=per_family, seed=11, make=subject.make)
    scores = {family: score_group(encoder, group).raw for family, group in fitted.items()}
    fake = np.concatenate([s for family, s in scores.items() if family != "real"])
    alarms = subject.alarms(encoder, "val")
    calibration = calibrate(scores["real"], fake, np.concatenate(list(alarms.values())))
    families = (*config.families, *unseen)
    card: dict[str, Any] = {"families_seen": list(config.families), "families_unseen": list(unseen)}
    for name, identities in split.items():
        samples = fixed(identities, families, per_family=per_family, seed=23, make=subject.make)
        raw = alarms if name == "val" else subject.alarms(encoder, "test")
        card[name] = {
            "families": family_rows(encoder, samples, calibration, unseen),
            "auc_seen": pooled_auc(encoder, samples, config.families),
            "false_alarms": false_alarms(raw, calibration),
            **robust_rows(encoder, calibration, subject, identities, families),
        }
    return calibration, card


def robust_rows(
    encoder: Encoder, calibration: Calibration, subject: Subject, portraits: Sequence[Portrait], families: Sequence[str]
) -> dict[str, Any]:
    """How often labels flip, what real pictures with a shortcut get, and what putting the forged pixels back does."""
    rng = np.random.default_rng(31)
    cases = subject.cases(portraits, families, rng)
    reals, fakes = ([c for c in cases if (c.family == "real") is wanted] for wanted in (True, False))
    again = {name: treatment for name, treatment in REENCODINGS.items() if name != "untouched"}
    return {
        "flips": robustness.flips(encoder, calibration, cases, again, subject.cut),
        "shortcuts": robustness.shortcuts(encoder, calibration, reals, subject.cut),
        "deletion": robustness.deletion(encoder, calibration, fakes, subject.cut, rng),
    }


def load_run(folder: Path) -> tuple[Encoder, TrainConfig]:
    """The averaged encoder of a run, and how it was trained."""
    config = msgspec.json.decode((folder / "config.json").read_bytes(), type=TrainConfig)
    run = Run(config, folder)
    run.resume()
    return run.encoder, config


def main() -> None:
    """Evaluate a run and write its checkpoint."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="for faces: the folder that holds fellows/, canada/, ...")
    parser.add_argument("--unseen", default="", help="comma-separated families that the run never saw")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, .safetensors")
    given = parser.parse_args()
    encoder, config = load_run(given.run)
    unseen = [family for family in given.unseen.split(",") if family]
    try:
        check_unseen(unseen, config)
    except ValueError as error:
        parser.error(str(error))
    if config.subject == "face" and given.photos is None:
        parser.error("faces need --photos, where false alarms are counted")
    portraits = load(given.portraits)
    subject: Subject = Scenes(portraits) if config.subject == "scene" else Faces(given.photos)
    calibration, card = evaluate(encoder, config, portraits, subject, unseen)
    card = {"name": given.out.stem, "training": asdict(config), **card}
    save_checkpoint(given.out, encoder, calibration, card)
    given.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
