"""The field's data sets in, lists of what is in them out: which file is forged from which, by what method, of whom.

    FaceForensics++   original_sequences/youtube/c23/videos/000.mp4
                      manipulated_sequences/{Deepfakes,Face2Face,FaceSwap,NeuralTextures}/c23/videos/000_003.mp4
                      manipulated_sequences/.../masks/videos/000_003.mp4, and train.json, val.json, test.json
    Celeb-DF-v2       Celeb-real/, YouTube-real/, Celeb-synthesis/id0_id16_0000.mp4, List_of_testing_videos.txt
    DFDC              any folders with metadata.json: {"a.mp4": {"label": "FAKE", "original": "b.mp4"}, ...}
    edited pairs      original/NAME, edited/METHOD/NAME, mask/METHOD/NAME.png if there (CelebA: identity_CelebA.txt,
                      list_eval_partition.txt if there)
    holes             images/[METHOD/]NAME and holes/[METHOD/]NAME.png, or fake/ and mask/; originals in original/

Nothing is opened here but the lists. One reason: only this file knows how others lay out their folders.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from scanner.training.clips import VIDEO_SUFFIXES
from scanner.training.portraits import Split, split_of
from scanner.training.tasks import REAL, TaskName

PICTURE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp"})
COMPRESSION = "c23"
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class DatasetError(ValueError):
    """A folder is not laid out as we know it, or holds nothing of what was asked for; the message says what to do."""


@dataclass(frozen=True)
class Clip:
    """One video or picture of a data set."""

    name: str  # unique and stable, e.g. "Face2Face/000_003"
    family: str  # the method, or REAL
    people: tuple[str, ...]  # everybody whose face or voice is in it: none may be in two splits
    split: Split
    path: Path
    original: str = ""  # name of the real clip that it was forged from, frame by frame; "" when not known
    mask: Path | None = None  # where it is forged: a video or a picture like it, forged = bright

    @property
    def identity(self) -> str:
        """One word for all people of the clip."""
        return "+".join(sorted(set(self.people)))


def faceforensics(root: Path) -> list[Clip]:
    """FaceForensics++ at c23, by its own split of pairs; videos that it does not name are left out."""
    split, partner = _pairs_of(root)
    clips = [
        Clip(f"real/{path.stem}", REAL, _both(path.stem, partner), split[path.stem], path)
        for path in _files(root / "original_sequences" / "youtube" / COMPRESSION / "videos", VIDEO_SUFFIXES)
        if path.stem in split
    ]
    for method in sorted(p for p in (root / "manipulated_sequences").iterdir() if p.is_dir()):
        for path in _files(method / COMPRESSION / "videos", VIDEO_SUFFIXES):
            target, _, source = path.stem.partition("_")
            if target in split and source in split:
                mask = method / "masks" / "videos" / path.name
                found = Clip(f"{method.name}/{path.stem}", method.name, (target, source), split[target], path)
                clips.append(replace(found, original=f"real/{target}", mask=mask if mask.exists() else None))
    return clips


def _pairs_of(root: Path) -> tuple[dict[str, Split], dict[str, str]]:
    """Which split each video belongs to, and with whom it was paired."""
    split: dict[str, Split] = {}
    partner: dict[str, str] = {}
    for name in SPLITS:
        path = next((p for p in (root / f"{name}.json", root / "splits" / f"{name}.json") if p.exists()), None)
        if path is None:
            msg = f"{root} has no {name}.json (nor splits/{name}.json): get the official split of FaceForensics++"
            raise DatasetError(msg)
        try:
            pairs = msgspec.json.decode(path.read_bytes(), type=list[tuple[str, str]])
        except msgspec.DecodeError as error:
            msg = f'{path} is not a list of pairs such as [["000", "003"]]: {error}'
            raise DatasetError(msg) from error
        for one, other in pairs:
            split[one] = split[other] = name
            partner[one], partner[other] = other, one
    return split, partner


def _both(stem: str, partner: dict[str, str]) -> tuple[str, ...]:
    """The two people of a pair: they are in each other's forgeries, so they are one identity."""
    return stem, partner[stem]


def celeb_df(root: Path) -> list[Clip]:
    """Celeb-DF-v2: its list of testing videos is the test split, people who are not in it are split by their name.

    A forgery id0_id16_0000 shows id16's face in the video id0_0000.
    """
    listed = {
        line.split()[-1] for line in (root / "List_of_testing_videos.txt").read_text().splitlines() if line.strip()
    }
    clips = []
    for folder in ("Celeb-real", "YouTube-real", "Celeb-synthesis"):
        for path in _files(root / folder, VIDEO_SUFFIXES):
            parts = path.stem.split("_")
            forged = folder == "Celeb-synthesis"
            people = tuple(parts[:-1]) if folder != "YouTube-real" else (f"youtube{path.stem}",)
            split = "test" if f"{folder}/{path.name}" in listed else split_of(people[0])
            original = f"Celeb-real/{parts[0]}_{parts[-1]}" if forged else ""
            family = "Celeb-DF" if forged else REAL
            clips.append(Clip(f"{folder}/{path.stem}", family, people, split, path, original))
    return clips


class _Described(msgspec.Struct):
    """One entry of DFDC's metadata.json."""

    label: str
    original: str | None = None


def dfdc(root: Path) -> list[Clip]:
    """DFDC: every part below `root`; a forgery belongs to its original's split, which is drawn by the original's name.

    Who acts in a video is not told: people may be in two splits, so prefer to measure on it.
    """
    clips = []
    for listing in sorted(root.rglob("metadata.json")):
        try:
            described = msgspec.json.decode(listing.read_bytes(), type=dict[str, _Described])
        except msgspec.DecodeError as error:
            msg = f"{listing} is not DFDC's metadata: {error}"
            raise DatasetError(msg) from error
        part = listing.parent.relative_to(root).as_posix()
        for file, entry in sorted(described.items()):
            path = listing.parent / file
            if not path.exists():
                continue
            origin = Path(entry.original or file).stem
            forged = entry.label.upper() == "FAKE"
            known = forged and entry.original is not None and (listing.parent / entry.original).exists()
            original = _name(part, origin) if known else ""
            family = "DFDC" if forged else REAL
            clips.append(Clip(_name(part, path.stem), family, (origin,), split_of(origin), path, original))
    return clips


def _name(part: str, stem: str) -> str:
    return stem if part == "." else f"{part}/{stem}"


def edited_pairs(root: Path) -> list[Clip]:
    """Pictures and edits of equal names; people and split from CelebA's lists where they lie beside, else by name."""
    identity, part = _column(root / "identity_CelebA.txt"), _column(root / "list_eval_partition.txt")
    clips: list[Clip] = []
    originals = {path.stem: path for path in _files(root / "original", PICTURE_SUFFIXES)}

    def clip(name: str, family: str, path: Path, original: str = "") -> Clip:
        who = identity.get(path.stem, path.stem)
        split = SPLITS[int(part[path.stem])] if path.stem in part else split_of(who)
        return Clip(name, family, (who,), split, path, original)

    clips += [clip(f"real/{stem}", REAL, path) for stem, path in originals.items()]
    for method in sorted(p for p in (root / "edited").iterdir() if p.is_dir()):
        for path in _files(method, PICTURE_SUFFIXES):
            original = f"real/{path.stem}" if path.stem in originals else ""
            found, mask = (
                clip(f"{method.name}/{path.stem}", method.name, path, original),
                _drawn(root, method.name, path),
            )
            clips.append(replace(found, mask=mask))
    return clips


def _drawn(root: Path, method: str, path: Path) -> Path | None:
    mask = root / "mask" / method / f"{path.stem}.png"
    return mask if mask.exists() else None


def _column(path: Path) -> dict[str, str]:
    """Stem to value of a list such as "000001.jpg 2880"; empty when it is not there."""
    if not path.exists():
        return {}
    rows = (line.split() for line in path.read_text().splitlines())
    return {Path(row[0]).stem: row[1] for row in rows if len(row) == 2}


def holes(root: Path) -> list[Clip]:
    """Filled pictures with their holes; the method is the folder, or "inpainting" where there is none."""
    fake, mask = (_first(root, names) for names in (("fake", "images"), ("mask", "holes")))
    if fake is None or mask is None:
        msg = f"{root} has no images/ and holes/ (or fake/ and mask/)"
        raise DatasetError(msg)
    real = _first(root, ("original", "originals", "real"))
    originals = {path.stem: path for path in _files(real, PICTURE_SUFFIXES)} if real else {}
    clips = [Clip(f"real/{s}", REAL, (s,), split_of(s), path) for s, path in originals.items()]
    folders = sorted(p for p in fake.iterdir() if p.is_dir()) or [fake]
    for folder in folders:
        method = folder.name if folder != fake else "inpainting"
        for path in _files(folder, PICTURE_SUFFIXES):
            drawn = [p for p in (mask / method / f"{path.stem}.png", mask / f"{path.stem}.png") if p.exists()]
            original = f"real/{path.stem}" if path.stem in originals else ""
            found = Clip(f"{method}/{path.stem}", method, (path.stem,), split_of(path.stem), path, original)
            clips.append(replace(found, mask=drawn[0] if drawn else None))
    return clips


def _first(root: Path, names: Sequence[str]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes) if folder.is_dir() else []


@dataclass(frozen=True)
class Layout:
    """One way to lay out a folder: how it is recognised and read, and which tasks it is for."""

    title: str
    tasks: tuple[TaskName, ...]
    sign: str  # a path below the root, or a pattern, that no other layout has
    clips: Callable[[Path], list[Clip]]


LAYOUTS = (
    Layout("FaceForensics++ (c23)", ("face-swap",), "manipulated_sequences", faceforensics),
    Layout("Celeb-DF-v2", ("face-swap",), "Celeb-synthesis", celeb_df),
    Layout("edited pairs", ("attributes", "face-swap"), "edited", edited_pairs),
    Layout("pictures with holes", ("inpainting",), "holes", holes),
    Layout("pictures with holes", ("inpainting",), "mask", holes),
    Layout("DFDC", ("face-swap",), "**/metadata.json", dfdc),
)


def layout_of(root: Path) -> Layout:
    """Which data set a folder holds; raises DatasetError when it looks like none of them."""
    for layout in LAYOUTS:
        if next(root.glob(layout.sign), None) is not None:
            return layout
    known = ", ".join(f"{layout.sign} ({layout.title})" for layout in LAYOUTS)
    msg = f"{root} holds no data set that we know; we look for {known}"
    raise DatasetError(msg)


def apart(clips: Iterable[Clip]) -> list[Clip]:
    """The clips without those whose people are also in a later split: test keeps all of its own, val what is left."""
    kept: list[Clip] = []
    taken: set[str] = set()
    everything = list(clips)
    for split in reversed(SPLITS):
        mine = [c for c in everything if c.split == split and not taken & set(c.people)]
        taken |= {person for c in mine for person in c.people}
        kept += mine
    return sorted(kept, key=lambda c: c.name)
