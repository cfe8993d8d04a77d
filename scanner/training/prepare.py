"""Folders of photographs and clips in, one file of portraits out: detection and alignment, done once before training.

python -m scanner.training.prepare ../shared/data --out runs/portraits.npz
"""

import argparse
import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

from scanner.decoding.decode import decode
from scanner.decoding.jail import Jail
from scanner.detection.faces import FaceDetector
from scanner.settings import Settings
from scanner.training.portraits import Portrait, cut, from_files, save

log = logging.getLogger(__name__)

PHOTO_FOLDERS = ("congress", "fellows", "london_neutral", "london_smiling", "canada")
SIGNERS = {
    "again": "a", "brother": "a", "help": "a", "no": "a", "student": "a", "yes": "a",
    "bird": "b", "milk": "b", "please": "b", "sorry": "b", "thanks": "b",
    "book": "c", "learn": "c", "school": "c", "walk": "c",
    "eat": "d", "night": "d", "sister": "d",
    "hungry": "e", "want": "e",
}  # fmt: skip
"""Who signs in which clip: five people in twenty clips, so that a split by identity is one."""


def from_clips(paths: Iterable[Path], detector: FaceDetector, jail: Jail, settings: Settings) -> Iterator[Portrait]:
    """Portraits of the clearly seen faces of each clip, up to 8 frames a clip."""
    for path in paths:
        frames = decode(path, jail=jail, settings=settings, max_frames=8).frames
        pictures = [frame.pixels for frame in frames]
        for picture, faces in zip(pictures, detector.detect(pictures), strict=True):
            for face in faces[:1]:
                yield cut(picture, face, identity=f"signer_{SIGNERS[path.stem]}", source="video")


def prepare(root: Path) -> list[Portrait]:
    """Every portrait of a data folder laid out as faces/<set>/*.jpg and video/<clip>.mkv."""
    detector = FaceDetector()
    hand_placed = root / "faces" / "landmarks_189.json"
    landmarks = json.loads(hand_placed.read_text()) if hand_placed.exists() else None
    portraits: list[Portrait] = []
    for folder in PHOTO_FOLDERS:
        found = from_files(sorted((root / "faces" / folder).glob("*.jpg")), detector, landmarks=landmarks)
        log.info("%s: %d portraits", folder, len(found))
        portraits += found
    settings = Settings()
    with Jail(settings) as jail:
        clips = [path for path in sorted((root / "video").glob("*.mkv")) if path.stem in SIGNERS]
        portraits += from_clips(clips, detector, jail, settings)
    return portraits


def main() -> None:
    """Write the portraits of a data folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="the folder that holds faces/ and video/")
    parser.add_argument("--out", type=Path, required=True, help="the .npz to write")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    portraits = prepare(given.data)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    save(portraits, given.out)
    log.info("%d portraits in %s", len(portraits), given.out)


if __name__ == "__main__":
    main()
