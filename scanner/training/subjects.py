"""What a checkpoint is measured on: real pictures after a life on the web, and canvases to treat again.

    Faces   photographs of people, found and aligned anew after each re-encoding, as in a scan
    Scenes  photographs of anything, judged as whole pictures by their tiles

One reason: a face and a scene differ in how they are cut and counted, and in nothing else of an evaluation.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.detection import tiles
from scanner.detection.faces import FaceDetector, align
from scanner.detection.lae import Encoder
from scanner.training import degrade, scenes
from scanner.training.data import Make, Sample, View, pair
from scanner.training.families import FAMILIES, cast, forged
from scanner.training.forge import Family
from scanner.training.portraits import MARGIN_PX, Pixels, Portrait, Split, identity_of, read, split_of
from scanner.training.robustness import Case, raw_scores
from scanner.training.train import score

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


class Subject(Protocol):
    """How one kind of picture is cut, forged and counted."""

    make: Make

    def cut(self, canvas: Pixels) -> Pixels:
        """The detector's view of a canvas that may have been resized."""
        ...

    def alarms(self, encoder: Encoder, split: Split) -> dict[str, NDArray[np.float64]]:
        """Raw scores of untouched photographs, one each, by re-encoding."""
        ...

    def cases(self, portraits: Sequence[Portrait], families: Sequence[str], rng: Generator) -> list[Case]:
        """Real canvases, and one forgery of every family for every fourth of them."""
        ...


class Faces:
    """The subject of the `face` checkpoint."""

    make: Make = staticmethod(pair)

    def __init__(self, photos: Path) -> None:
        """`photos` is the folder that holds fellows/, canada/, ..."""
        self.photos, self._detector = photos, FaceDetector()

    def cut(self, canvas: Pixels) -> Pixels:
        """The middle of a canvas."""
        straight = np.array([[1.0, 0.0, -MARGIN_PX], [0.0, 1.0, -MARGIN_PX]])
        return View(straight, flip=False).of(canvas)

    def alarms(self, encoder: Encoder, split: Split) -> dict[str, NDArray[np.float64]]:
        """One score for each face found in `photos`."""
        found = reencoded(photos_of(self.photos, split), self._detector)
        return {name: score(encoder, group)[0].astype(np.float64) for name, group in found.items()}

    def cases(self, portraits: Sequence[Portrait], families: Sequence[str], rng: Generator) -> list[Case]:
        """Portraits of the folders that count as untouched."""
        untouched = [p for p in portraits if p.source in FALSE_ALARM_SOURCES]
        return _cases(untouched, portraits, families, rng)


class Scenes:
    """The subject of the `inpaint` checkpoint; its pictures are the scenes themselves."""

    make: Make = staticmethod(scenes.pair)

    def __init__(self, photographs: Sequence[Portrait]) -> None:
        """All scenes; each split takes its own."""
        self.photographs = photographs

    def cut(self, canvas: Pixels) -> Pixels:
        """The middle tile."""
        return scenes.Window(0.5, 0.5, flip=False, turns=0).of(canvas)

    def alarms(self, encoder: Encoder, split: Split) -> dict[str, NDArray[np.float64]]:
        """The highest score of any tile of each picture."""
        photographs = [scene for scene in self.photographs if scenes.split(scene) == split]
        return {
            name: np.array([_worst_tile(encoder, treatment(scene.canvas)) for scene in photographs])
            for name, treatment in REENCODINGS.items()
        }

    def cases(self, portraits: Sequence[Portrait], families: Sequence[str], rng: Generator) -> list[Case]:
        """Squares of the scenes."""
        squares = [scenes.part_of(scene, rng) for scene in portraits]
        return _cases(squares, squares, families, rng, scenes.FAMILIES)


def _worst_tile(encoder: Encoder, picture: Pixels) -> float:
    height, width = picture.shape[:2]
    return float(raw_scores(encoder, list(tiles.cut(picture, tiles.plan(height, width)))).max())


def _cases(
    chosen: Sequence[Portrait],
    donors: Sequence[Portrait],
    families: Sequence[str],
    rng: Generator,
    of: Mapping[str, Family] = FAMILIES,
) -> list[Case]:
    if not chosen:
        msg = f"no canvas that counts as untouched; those are of {', '.join(FALSE_ALARM_SOURCES)}"
        raise ValueError(msg)
    size = chosen[0].canvas.shape[0]
    cases = [Case(p.canvas, "real", p.canvas, np.zeros((size, size), np.float32)) for p in chosen]
    for family in families:
        for portrait in chosen[::4]:
            person, donor = cast(portrait, donors, family, rng)
            forgery = forged(person, donor, family, rng, of)
            cases.append(Case(forgery.picture, family, person.canvas, forgery.mask))
    return cases
