"""How often whole pictures raise a false alarm, and what of inpainting is found: the numbers of LAESCAN_REGIONS.

    python tests/bench_regions.py [PICTURES] [WEIGHTS] [val]

Real pictures that the checkpoint was neither trained on nor calibrated with (photographs of the test half, portraits
of test identities; with `val` those that a threshold may be chosen on), as they are and re-encoded, each looked at
whole as a scan does: a hundred tiles have a hundred chances for a false alarm, so the rate of tiles in the model card
says little about pictures. Forgeries are made by every family of `scanner.training.scenes` in a square of a
photograph; found = some region overlaps the forged pixels.
"""

import asyncio
import platform
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import bench_near
import cv2
import msgspec
import numpy as np

from scanner.detection.detector import Detector
from scanner.detection.local_model import LocalModel
from scanner.detection.survey import Survey
from scanner.settings import Settings
from scanner.training import families, metrics, scenes
from scanner.training.forge import visible
from scanner.training.portraits import Pixels, Portrait, identity_of, read, split_of

DATA, FACES = bench_near.DATA, bench_near.FACES
ALLOWED = 0.02
"""False alarms beyond which looking at whole pictures stays off by default."""
LIVES: dict[str, bench_near.Change] = {
    "as they are": lambda frame: frame,
    "JPEG 90": bench_near.jpeg(90),
    "JPEG 60": bench_near.jpeg(60),
    "WebP 80": bench_near.coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "half, JPEG 75": lambda frame: bench_near.jpeg(75)(bench_near.resized(0.5)(frame)),
}
FORGED_LIVES = ("as they are", "JPEG 90", "JPEG 60")


def photographs(half: str) -> list[Path]:
    """Those that scenes of this half are made of."""
    nothing = np.zeros((1, 1, 3), np.uint8)
    return [
        path
        for path in sorted((DATA / "natural" / "val").glob("*.jpg"))
        if scenes.split(Portrait(nothing, scenes.NO_SHAPE, identity_of(path), "val", 1.0)) == half
    ]


def portraits(half: str) -> list[Path]:
    paths = [path for folder in FACES for path in sorted((DATA / "faces" / folder).glob("*.jpg"))]
    return [path for path in paths if split_of(identity_of(path)) == half]


def forgeries(frame: Pixels, donor: Pixels, seed: int) -> Iterator[tuple[str, Pixels, Pixels]]:
    """(family, forged picture, mask of its size) by every family, in the same random square."""
    side = scenes.SIDE_PX
    for number, family in enumerate(scenes.FAMILIES):
        rng = np.random.default_rng([seed, number])
        y, x = (int(rng.integers(length - side + 1)) for length in frame.shape[:2])
        square = np.ascontiguousarray(frame[y : y + side, x : x + side])
        me, other = (Portrait(pixels, scenes.NO_SHAPE, "", "", 1.0) for pixels in (square, donor))
        forgery = families.forged(me, other, family, rng, scenes.FAMILIES)
        if not visible(square, forgery.picture, forgery.mask):
            continue
        forged, mask = frame.copy(), np.zeros(frame.shape[:2], np.uint8)
        forged[y : y + side, x : x + side] = forgery.picture
        mask[y : y + side, x : x + side] = forgery.mask > 0.5
        yield family, forged, mask


class Bench:
    """A model, and what it said."""

    def __init__(self, model: LocalModel, limit: float) -> None:
        self.model, self.limit = model, limit
        self.looked = 0

    def survey(self, frame: Pixels) -> Survey:
        survey = asyncio.run(self.model.survey(frame))
        assert survey is not None, "LAESCAN_REGIONS is on"
        self.looked += len(survey.tiles)
        return survey

    def peak(self, frame: Pixels) -> float:
        """The score of the strongest region, however weak or strong: no clip, which would hide how far it is."""
        survey = self.survey(frame)
        wide = msgspec.structs.replace(survey.calibration, manipulated=1 - 1e-9)
        regions = replace(survey, calibration=wide).regions(threshold=0.01)
        return max((region.score for region in regions), default=0.0)

    def finds(self, frame: Pixels, mask: Pixels) -> tuple[bool, bool]:
        """(some region is reported, some region overlaps the mask)."""
        found = self.survey(frame).regions(threshold=self.limit)
        boxes = [tuple(map(int, region.box)) for region in found]
        return bool(found), any(mask[y0:y1, x0:x1].any() for x0, y0, x1, y1 in boxes)


def share(name: str, hits: np.ndarray) -> str:
    low, high = metrics.interval(float(hits.mean()), len(hits))
    return f"{name:28}{len(hits):6}{hits.mean():9.1%}  ({low:.0%} to {high:.0%})"


def false_alarms(bench: Bench, name: str, frames: list[Pixels]) -> None:
    everything = []
    print(f"\n{name}: pictures called manipulated at {bench.limit:.4f}")
    for life, change in LIVES.items():
        peaks = np.array([bench.peak(change(frame)) for frame in frames])
        everything.append(peaks)
        print(share(life, peaks >= bench.limit), flush=True)
    peaks = np.concatenate(everything)
    print(f"at most {ALLOWED:.0%} of these are called so from {np.quantile(peaks, 1 - ALLOWED):.4f} on")


def found(bench: Bench, frames: list[Pixels]) -> None:
    hits = defaultdict(list)
    for seed, frame in enumerate(frames):
        for family, forged, mask in forgeries(frame, frames[seed - 1], seed):
            for life in FORGED_LIVES:
                hits[family, life].append(bench.finds(LIVES[life](forged), mask))
    print("\nforged photographs: called manipulated, and with a region on the forged pixels")
    for (family, life), pairs in sorted(hits.items()):
        called, placed = np.array(pairs).T
        print(f"{share(f'{family}, {life}', called)}{placed.mean():9.1%}", flush=True)


def main() -> None:
    """Print the tables."""
    count = next((int(word) for word in sys.argv[1:] if word.isdigit()), 60)
    half = "val" if "val" in sys.argv[1:] else "test"
    weights = next((word for word in sys.argv[1:] if not word.isdigit() and word != half), "")
    settings = Settings(regions=True, region_weights=weights, threads=1)
    detector = Detector.load_for_regions(settings)
    limit = max(detector.calibration.manipulated, Detector.load(settings).calibration.manipulated)
    print(f"Python {platform.python_version()}, model {detector.info.model_id}, {half}, threshold {limit:.4f}")
    begun = time.perf_counter()
    with LocalModel.load(settings) as model:
        bench = Bench(model, limit)
        order = np.random.default_rng(0).permutation
        scenery, people = (
            [read(paths[i]) for i in order(len(paths))[:count]] for paths in (photographs(half), portraits(half))
        )
        false_alarms(bench, "real photographs", scenery)
        false_alarms(bench, "real portraits", people)
        found(bench, scenery)
    took_s = time.perf_counter() - begun
    print(f"\n{bench.looked} tiles in {took_s:.0f} s")


if __name__ == "__main__":
    main()
