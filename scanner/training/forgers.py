"""Trained generators and portraits or scenes in, forgeries with exact masks out.

    python -m scanner.training.forgers --model FILE --pictures runs/portraits.npz --out DIR

Portraits are written as `datasets.edited_pairs` reads them (original/, edited/METHOD/, mask/METHOD/, equal names),
scenes as `datasets.holes` does (original/, fake/METHOD/, mask/METHOD/), for `laescan train --data DIR`.
The methods are `autoencoder_swap` and `painted`.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.random import Generator

from scanner.training import degrade, masks, scenes
from scanner.training.families import forged
from scanner.training.forge import Family, Forgery
from scanner.training.generators import FACE, Filler, Swapper, face_of, kept, pixels, tensor
from scanner.training.masks import Mask
from scanner.training.portraits import Pixels, Portrait, load, region, split_of

SWAP, FILL = "autoencoder_swap", "painted"


def swapping(model: Swapper) -> Family:
    """The family of one swapper: the donor's decoder draws the portrait's face, which is then blended in."""

    def autoencoder_swap(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
        """Raises ValueError for a donor that the swapper has no decoder for."""
        if donor.identity not in model.config.people:
            msg = f"this swapper cannot draw {donor.identity}, only {', '.join(model.config.people)}"
            raise ValueError(msg)
        size = portrait.canvas.shape[0]
        with torch.inference_mode():
            drawn = pixels(model(tensor([face_of(portrait.canvas, model.config.size)]), donor.identity))
        side = FACE.stop - FACE.start
        whole = portrait.canvas.copy()
        whole[FACE, FACE] = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)
        mask = masks.jittered(region(portrait.shape, "inner"), rng, size)
        mask = np.asarray(masks.feather(mask, rng, widest=0.06), np.float32)
        mask[: FACE.start], mask[FACE.stop :], mask[:, : FACE.start], mask[:, FACE.stop :] = 0, 0, 0, 0
        if rng.random() < 0.7:  # the light of the place
            inside = mask > 0.5
            shift = portrait.canvas[inside].mean(0) - whole[inside].mean(0) if inside.any() else np.zeros(3)
            whole = np.clip(whole + shift, 0, 255).astype(np.uint8)
        return np.asarray(cv2.blendLinear(whole, portrait.canvas, mask, 1 - mask), np.uint8), mask

    return autoencoder_swap


def filling(model: Filler) -> Family:
    """The family of one filler: a hole anywhere in the picture, painted from what lies around it."""

    def painted(picture: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
        hole = scenes.hole(rng, picture.canvas.shape[0])
        filled = paint(model, picture.canvas, hole)
        if rng.random() < 0.4:  # grain, as it is added to hide the smoothness
            noisy = degrade.noise(filled, rng.uniform(0.5, 3), rng)
            filled = np.where(hole[..., None] > 0, noisy, filled).astype(np.uint8)
        return filled, hole

    return painted


def paint(model: Filler, picture: Pixels, hole: Mask) -> Pixels:
    """The picture with its hole painted by the network, which sees the hole and as much around it again."""
    ys, xs = np.nonzero(hole > 0.5)
    if not len(ys):
        return picture
    side = min(picture.shape[0], picture.shape[1], max(model.config.size, 2 * int(max(np.ptp(ys), np.ptp(xs)) + 1)))
    middle = np.array([(ys.min() + ys.max()) / 2, (xs.min() + xs.max()) / 2])
    y, x = np.clip((middle - side / 2).round(), 0, np.array(picture.shape[:2]) - side).astype(int).tolist()
    size = (model.config.size, model.config.size)
    window = cv2.resize(picture[y : y + side, x : x + side], size, interpolation=cv2.INTER_AREA)
    small = (cv2.resize(hole[y : y + side, x : x + side], size, interpolation=cv2.INTER_AREA) > 0).astype(np.float32)
    with torch.inference_mode():
        drawn = pixels(model(tensor([np.asarray(window, np.uint8)]), torch.from_numpy(small)[None, None]))
    out = picture.copy()
    large = cv2.resize(drawn, (side, side), interpolation=cv2.INTER_CUBIC)
    out[y : y + side, x : x + side] = large
    return np.where(hole[..., None] > 0.5, out, picture).astype(np.uint8)


def forgeries(
    model: Swapper | Filler, pictures: Sequence[Portrait], rng: Generator
) -> Iterator[tuple[Portrait, Forgery]]:
    """One forgery of every picture that the model can forge, with its original.

    A swapper forges the pictures of its people, each with the face of every other; a filler all pictures.
    """
    if isinstance(model, Filler):
        for picture in pictures:
            is_scene = not len(picture.shape)
            part = picture if not is_scene else scenes.part_of(picture, rng)
            yield part, forged(part, part, FILL, rng, {FILL: filling(model)})
        return
    of = {person: [p for p in pictures if p.identity == person] for person in model.config.people}
    for one, other in itertools.permutations(model.config.people, 2):
        for portrait in of[one]:
            donor = of[other][int(rng.integers(len(of[other])))]
            yield portrait, forged(portrait, donor, SWAP, rng, {SWAP: swapping(model)})


def write(found: Iterator[tuple[Portrait, Forgery]], folder: Path) -> int:
    """Write originals, forgeries and masks under equal names; returns how many."""
    count = 0
    for count, (picture, forgery) in enumerate(found, 1):
        stem = f"{picture.identity}__{count:05}.png"
        fake = "fake" if not len(picture.shape) else "edited"
        for kind, pixels_ in (
            ("original", picture.canvas[:, :, ::-1]),
            (f"{fake}/{forgery.family}", forgery.picture[:, :, ::-1]),
            (f"mask/{forgery.family}", np.rint(255 * forgery.mask).astype(np.uint8)),
        ):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(folder / kind / stem), pixels_)
    return count


def main() -> None:
    """Forge pictures with one generator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pictures", type=Path, required=True, help="portraits or scenes, .npz")
    parser.add_argument("--split", choices=["train", "val", "test"], help="only these identities")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    pictures = [p for p in load(given.pictures) if given.split in {None, split_of(p.identity)}]
    write(forgeries(kept(given.model), pictures, np.random.default_rng(0)), given.out)


if __name__ == "__main__":
    main()
