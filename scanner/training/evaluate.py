"""A training run in, honest numbers and the checkpoint to ship out.

    python -m scanner.training.evaluate --run runs/face --portraits runs/portraits.npz \
        --photos PATH --unseen swap --out FILE

Calibration and thresholds come from validation identities and seen families only.
Test identities and unseen families are measured once the thresholds stand, and decide nothing.
"""

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
from numpy.typing import NDArray

from scanner.checkpoint import save_checkpoint
from scanner.faces import FaceDetector, align
from scanner.lae import Encoder
from scanner.training import degrade, metrics
from scanner.training.calibrate import calibrate, sigmoid
from scanner.training.data import Sample, fixed
from scanner.training.portraits import Pixels, Portrait, Split, identity_of, load, read, split_of
from scanner.training.train import Run, TrainConfig, score
from scanner.verdict import Calibration

REENCODINGS: dict[str, degrade.Treatment] = {
    "untouched": lambda p: p,
    **{f"jpeg {q}": (lambda p, q=q: degrade.jpeg(p, q)) for q in (50, 60, 70, 80, 90, 95)},  # type: ignore[misc]
    **{f"webp {q}": (lambda p, q=q: degrade.webp(p, q)) for q in (50, 80)},  # type: ignore[misc]
    **{f"resize {f}": (lambda p, f=f: resize(p, f)) for f in (0.5, 0.75, 1.5, 2.0)},  # type: ignore[misc]
}
FALSE_ALARM_SOURCES = ("fellows", "london_neutral", "london_smiling", "canada")
"""Folders whose photographs count as untouched; the congress set was coloured and enlarged before it came to us."""


def resize(picture: Pixels, factor: float) -> Pixels:
    """Resized as a site would, then saved once as JPEG 85."""
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    smaller = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=how)
    return degrade.jpeg(np.asarray(smaller, np.uint8), 85)


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


def photos_of(root: Path, split: Split) -> list[Path]:
    """The photographs of one split that count for false alarms."""
    files = (f for source in FALSE_ALARM_SOURCES for f in sorted((root / source).glob("*.jpg")))
    return [f for f in files if split_of(identity_of(f)) == split]


def reencoded(paths: Iterable[Path], detector: FaceDetector) -> dict[str, list[Sample]]:
    """Real crops after each re-encoding of the whole photograph, found and aligned anew as in a scan."""
    found: dict[str, list[Sample]] = {name: [] for name in REENCODINGS}
    for path in paths:
        photo = read(path)
        for name, treatment in REENCODINGS.items():
            frame = treatment(photo)
            for face in detector.detect([frame])[0][:1]:
                crop, _ = align(frame, face)
                found[name].append(Sample(crop, np.zeros(crop.shape[:2], np.float32), "real", identity_of(path)))
    return found


def family_rows(
    encoder: Encoder, samples: dict[str, list[Sample]], calibration: Calibration, unseen: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Per family: AUC and EER against the reals of the same set, share called manipulated, map quality."""
    groups = {family: score_group(encoder, group) for family, group in samples.items()}
    real = groups.pop("real").raw
    return {
        family: {
            "seen": family not in unseen,
            "n": len(group.raw),
            "auc": round(metrics.auc(real, group.raw), 4),
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


def false_alarms(
    encoder: Encoder, crops: dict[str, list[Sample]], calibration: Calibration
) -> dict[str, dict[str, Any]]:
    """Share of real pictures called manipulated, by re-encoding and over all, with its 95 % interval."""
    rows = {}
    everything = {**crops, "all": [s for group in crops.values() for s in group]}
    for name, group in everything.items():
        share = share_manipulated(score(encoder, group)[0].astype(np.float64), calibration)
        low, high = metrics.interval(share, len(group))
        rows[name] = {"n": len(group), "share": round(share, 4), "low": round(low, 4), "high": round(high, 4)}
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
    photos: Path,
    unseen: Sequence[str],
    *,
    per_family: int = 100,
) -> tuple[Calibration, dict[str, Any]]:
    """Calibrate on validation, then measure on validation and test; returns the card of the checkpoint.

    Raises ValueError when a family called unseen was trained on.
    """
    check_unseen(unseen, config)
    detector = FaceDetector()
    split = {name: [p for p in portraits if split_of(p.identity) == name] for name in ("val", "test")}
    fitted = fixed(split["val"], config.families, per_family=per_family, seed=11)
    scores = {family: score_group(encoder, group).raw for family, group in fitted.items()}
    fake = np.concatenate([s for family, s in scores.items() if family != "real"])
    val_photos = reencoded(photos_of(photos, "val"), detector)
    alarm = np.concatenate([score(encoder, group)[0] for group in val_photos.values()])
    calibration = calibrate(scores["real"], fake, alarm)
    families = (*config.families, *unseen)
    card: dict[str, Any] = {"families_seen": list(config.families), "families_unseen": list(unseen)}
    for name, identities in split.items():
        samples = fixed(identities, families, per_family=per_family, seed=23)
        rows = family_rows(encoder, samples, calibration, unseen)
        photographs = val_photos if name == "val" else reencoded(photos_of(photos, "test"), detector)
        card[name] = {
            "families": rows,
            "auc_seen": pooled_auc(encoder, samples, config.families),
            "false_alarms": false_alarms(encoder, photographs, calibration),
        }
    return calibration, card


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
    parser.add_argument("--photos", type=Path, required=True, help="the folder that holds fellows/, canada/, ...")
    parser.add_argument("--unseen", default="", help="comma-separated families that the run never saw")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint to write, .safetensors")
    given = parser.parse_args()
    encoder, config = load_run(given.run)
    unseen = [family for family in given.unseen.split(",") if family]
    try:
        check_unseen(unseen, config)
    except ValueError as error:
        parser.error(str(error))
    calibration, card = evaluate(encoder, config, load(given.portraits), given.photos, unseen)
    card = {"name": given.out.stem, "training": asdict(config), **card}
    save_checkpoint(given.out, encoder, calibration, card)
    given.out.with_suffix(".json").write_text(json.dumps(card, indent=1) + "\n")


if __name__ == "__main__":
    main()
