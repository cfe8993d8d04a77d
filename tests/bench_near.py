"""What the near tier takes for the same picture: `python tests/bench_near.py [PICTURES] [FORGERIES_EACH] [train]`.

Re-encodings should be hits, forgeries must not be. The pictures are those that no threshold was chosen on (validation
and test identities, validation photographs); with `train` those that they were chosen on. A forgery is made by every
family of `scanner.training`, on the face or on the scene, set back into the whole picture and judged as it is, as
JPEG 75 and at half its size as JPEG 60: each is one query against its own original. What changes its region by less
than 5 grey levels on average is no forgery (`forge.visible`) and left out.
"""

import platform
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch

from scanner.cache.bands import RADIUS
from scanner.cache.fingerprint import Look
from scanner.cache.near import Root, difference, is_comparable
from scanner.detection.faces import Face, FaceDetector, align
from scanner.training import families, scenes
from scanner.training.forge import visible
from scanner.training.portraits import CROP_PX, MARGIN_PX, Pixels, Portrait, cut, identity_of, read, split_of

DATA = Path(__file__).parents[2] / "shared" / "data"
FACES = ("fellows", "congress", "london_neutral", "london_smiling", "canada")
DRAW = 3  # by the results of the first two draws limits were set
Change = Callable[[Pixels], Pixels]


@dataclass(frozen=True, eq=False)
class Subject:
    """A scanned picture."""

    path: Path
    frame: Pixels
    face: Face | None
    look: Look
    root: Root


def coded(suffix: str, flag: int, quality: int) -> Change:
    def change(frame: Pixels) -> Pixels:
        data = cv2.imencode(suffix, frame[:, :, ::-1], [flag, quality])[1]
        return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[:, :, ::-1])

    return change


def jpeg(quality: int) -> Change:
    return coded(".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)


def resized(factor: float) -> Change:
    """Averaged when it shrinks, as every picture library does by default or by advice."""

    def change(frame: Pixels) -> Pixels:
        size = [max(1, round(side * factor)) for side in frame.shape[1::-1]]
        return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC))

    return change


def strided(frame: Pixels) -> Pixels:
    """Half the size by whole steps, so that the last row or column may be left out."""
    return np.asarray(cv2.resize(frame, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA))


REENCODINGS: dict[str, Change] = {
    "JPEG 90": jpeg(90),
    "JPEG 60": jpeg(60),
    "JPEG 30": jpeg(30),
    "WebP 80": coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 80),
    "WebP 40": coded(".webp", cv2.IMWRITE_WEBP_QUALITY, 40),
    "resize 0.25": resized(0.25),
    "resize 0.5": resized(0.5),
    "resize 0.75": resized(0.75),
    "resize 2": resized(2),
}
HARDER: dict[str, Change] = {
    "resize 0.5, JPEG 60": lambda frame: jpeg(60)(resized(0.5)(frame)),
    "resize 0.5, strided": strided,
    "resize 0.25, JPEG 75": lambda frame: jpeg(75)(resized(0.25)(frame)),
}
COPIES: dict[str, Change] = {
    "as it is": lambda frame: frame,
    "JPEG 75": jpeg(75),
    "half, JPEG 60": lambda frame: jpeg(60)(resized(0.5)(frame)),
}


def subjects(count: int, *, train: bool) -> Iterator[Subject]:
    """Up to `count` pictures of all folders in turn, scanned: their faces found."""
    detector, wanted = FaceDetector(), {"train"} if train else {"val", "test"}
    paths = [
        path
        for folder in FACES
        for path in sorted((DATA / "faces" / folder).glob("*.jpg"))
        if split_of(identity_of(path)) in wanted
    ]
    paths += sorted((DATA / "natural" / ("train" if train else "val")).glob("*.jpg"))
    for index in np.random.default_rng(0).permutation(len(paths))[:count]:
        frame = np.ascontiguousarray(read(paths[index]))
        faces, look = detector.detect([frame])[0], Look(frame)
        boxes = [tuple(np.array(face.box) / (frame.shape[1::-1] * 2)) for face in faces]
        yield Subject(paths[index], frame, faces[0] if faces else None, look, Root.of(look, boxes))


def answer(subject: Subject, frame: Pixels) -> tuple[int, float]:
    """The query's distance to the scanned picture in bits, and its difference, infinite when it is not nominated."""
    look = Look(frame)
    distance = (look.perceptual_hash ^ subject.look.perceptual_hash).bit_count()
    nominated = distance <= RADIUS and is_comparable(look)
    return distance, difference(look, subject.root) if nominated else np.inf


# ---------------------------------------------------------------- forgeries of whole pictures


def forge_face(subject: Subject, cast: list[Portrait], family: str, rng: np.random.Generator) -> Pixels | None:
    """The forged canvas put back where it was cut from; what the family left alone stays as it was to the bit."""
    assert subject.face is not None
    me = cut(subject.frame, subject.face, identity=identity_of(subject.path), source="")
    donor = families.donor_for(me, cast, family, rng)
    if donor is None:
        return None
    forgery = families.forged(me, donor, family, rng)
    if not visible(me.canvas, forgery.picture, forgery.mask):
        return None
    forged = forgery.picture
    _, crop_to_frame = align(subject.frame, subject.face)
    canvas_to_crop = [[1 / CROP_PX, 0, -MARGIN_PX / CROP_PX], [0, 1 / CROP_PX, -MARGIN_PX / CROP_PX], [0, 0, 1]]
    to_frame, size = crop_to_frame @ np.array(canvas_to_crop), subject.frame.shape[1::-1]
    changed = cv2.dilate((forged != me.canvas).any(2).astype(np.float32), np.ones((3, 3)))
    alpha = cv2.warpAffine(changed, to_frame, size)[..., None]
    back = cv2.warpAffine(forged, to_frame, size, flags=cv2.INTER_CUBIC)
    return np.round(subject.frame * (1 - alpha) + back * alpha).astype(np.uint8)


def forge_scene(subject: Subject, donor: Subject, family: str, rng: np.random.Generator) -> Pixels | None:
    """A random square of the picture forged in place."""
    side = scenes.SIDE_PX
    y, x = (int(rng.integers(max(1, length - side + 1))) for length in subject.frame.shape[:2])
    square = np.ascontiguousarray(subject.frame[y : y + side, x : x + side])
    me, other = (Portrait(pixels, scenes.NO_SHAPE, "", "", 1.0) for pixels in (square, donor.frame))
    forgery = families.forged(me, other, family, rng, scenes.FAMILIES)
    if not visible(square, forgery.picture, forgery.mask):
        return None
    forged = subject.frame.copy()
    forged[y : y + side, x : x + side] = forgery.picture
    return forged


def forgeries(
    subject: Subject, others: list[Subject], cast: list[Portrait], count: int
) -> Iterator[tuple[str, Pixels]]:
    """`count` forgeries of one picture by as many families, drawn anew for each picture."""
    rng = np.random.default_rng([int(subject.look.perceptual_hash % 2**32), DRAW])
    known = families.FAMILIES if subject.face is not None else scenes.FAMILIES
    for family in rng.permutation(list(known))[:count]:
        if subject.face is not None:
            forged = forge_face(subject, cast, str(family), rng)
        elif min(subject.frame.shape[:2]) >= scenes.SIDE_PX:
            forged = forge_scene(subject, others[int(rng.integers(len(others)))], str(family), rng)
        else:
            forged = None
        if forged is not None:
            yield str(family), forged


# ---------------------------------------------------------------- the table


def row(name: str, answers: list[tuple[int, float]]) -> str:
    distances, differences = np.array(answers).T
    shown = " ".join(f"{value:4.0f}" for value in np.percentile(distances, (50, 95, 100)))
    return f"{name:22}{len(answers):7}  {shown}{(distances <= RADIUS).mean():10.1%}{(differences < 1).mean():10.1%}"


def reencoded(pictures: list[Subject], changes: dict[str, Change]) -> dict[str, list[tuple[int, float]]]:
    return {name: [answer(one, change(one.frame)) for one in pictures] for name, change in changes.items()}


def main() -> None:
    """Print the table."""
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    count, each = (*numbers, *(300, 4)[len(numbers) :])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    pictures = list(subjects(count, train="train" in sys.argv))
    kinds = sum(one.face is not None for one in pictures)
    print(f"Python {platform.python_version()}: {len(pictures)} pictures, {kinds} with faces")
    print(f"{'':22}{'pairs':>7}  bits: 50 %, 95 %, all{'nominated':>6}{'taken':>10}", flush=True)
    asked = reencoded(pictures, REENCODINGS)
    for name, answers in (asked | reencoded(pictures, HARDER)).items():
        print(row(name, answers), flush=True)
    print(row("re-encodings, first 9", [one for answers in asked.values() for one in answers]), flush=True)
    cast = [cut(p.frame, p.face, identity=identity_of(p.path), source="") for p in pictures if p.face is not None]
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for subject in pictures:
        for family, forged in forgeries(subject, pictures, cast, each):
            found[family] += [answer(subject, copy(forged)) for copy in COPIES.values()]
    for family in sorted(found):
        print(row(family, found[family]))
    forged_all = [one for answers in found.values() for one in answers]
    print(row("forgeries", forged_all))
    print(f"served another picture's verdict: {sum(one < 1 for _, one in forged_all)} of {len(forged_all)} forgeries;")
    print("the least differences (1 = taken):", " ".join(f"{one:.2f}" for one in sorted(d for _, d in forged_all)[:8]))
    codes = [one.look.perceptual_hash for one in pictures]
    apart = min(((a ^ b).bit_count() for i, a in enumerate(codes) for b in codes[:i]), default=256)
    print(f"the nearest two different pictures are {apart} bits apart; the radius is {RADIUS}")


if __name__ == "__main__":
    main()
