"""Portraits in, the shipped example pictures out: one original and three forgeries of people whom training never saw.

    python -m scanner.training.examples --portraits runs/portraits.npz --out tests/media

Only test identities of the London set, who consented to altered versions; one fixed seed: nothing is hand-picked.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from scanner.training.families import donor_for, forged
from scanner.training.portraits import Pixels, Portrait, load, split_of

FAMILIES = ("swap", "attribute", "inpaint")
SEED = 2020  # the year of the paper


def examples(portraits: Sequence[Portrait]) -> dict[str, Pixels]:
    """Pictures (352, 352, 3) by name: `example_original` and one `example_<family>` each."""
    cast = [p for p in portraits if p.source == "london_neutral" and split_of(p.identity) == "test"]
    rng = np.random.default_rng(SEED)
    pictures = {"example_original": cast[0].canvas}
    for portrait, family in zip(cast[1:], FAMILIES, strict=False):
        donor = donor_for(portrait, cast, family, rng) or portrait
        pictures[f"example_{family}"] = forged(portrait, donor, family, rng).picture
    return pictures


def main() -> None:
    """Write the examples as JPEG."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    for name, picture in examples(load(given.portraits)).items():
        cv2.imwrite(str(given.out / f"{name}.jpg"), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
