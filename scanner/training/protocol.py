"""A seen set, arms and seeds in, a folder of trained encoders out: the paper's two stages (8.6, 8.7), resumable.

    DIR/plan.json                    what is run; another plan needs another folder
    DIR/stage1/KEY-SEED/             stage 1, shared by all arms that differ in masks only (see `stage.py`)
    DIR/arms/ARM/SEED/candidates/    who got a mask, in the form that `laescan annotate` edits
    DIR/arms/ARM/SEED/               stage 2; `done` when there is nothing left to do

One reason: the trainer takes a `SeenSet` and nothing else; what is unseen never comes here.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import torch

from scanner.training.active import Looked, select
from scanner.training.arms import ARMS, Arm, Scale
from scanner.training.batches import opened
from scanner.training.candidates import (
    Masked,
    Source,
    difference_mask,
    read_candidates,
    read_masks,
    read_sources,
    write_candidates,
    write_mask,
)
from scanner.training.methods import LocalityAware, Method
from scanner.training.stage import Course, Stage, watch, whole
from scanner.training.tasks import Item, SeenSet, TaskName

log = logging.getLogger(__name__)
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """Everything that decides a run; stands in plan.json."""

    task: TaskName
    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    arms: tuple[str, ...]
    seeds: int = 3
    data: str | None = None  # a folder of the field's data sets
    pictures: str | None = None  # photographs to forge from, where there is no data set
    masks: Literal["automatic", "human"] = "automatic"
    vgg: str | None = None  # a VGG-16 file; without it the perceptual weight is 0
    scale: Scale = field(default_factory=Scale)

    def check(self) -> None:
        """Raise ValueError for an unknown arm."""
        if unknown := set(self.arms) - set(ARMS):
            msg = f"no arm {', '.join(sorted(unknown))}; there are {', '.join(ARMS)}"
            raise ValueError(msg)

    def keep(self, folder: Path) -> None:
        """Write plan.json; more arms and seeds may join later, anything else raises ValueError."""
        path = folder / "plan.json"
        if path.exists():
            before = read_plan(folder)
            if asdict(before) | {"arms": self.arms, "seeds": self.seeds} != asdict(self):
                msg = f"{folder} holds a run of another plan; begin in another folder, or ask for the same"
                raise ValueError(msg)
        folder.mkdir(parents=True, exist_ok=True)
        whole(path, json.dumps(asdict(self), indent=1).encode())


def read_plan(folder: Path) -> Plan:
    """The plan of a folder; raises ValueError when there is none."""
    try:
        return msgspec.json.decode((folder / "plan.json").read_bytes(), type=Plan)
    except (OSError, msgspec.DecodeError) as error:
        msg = f"{folder} is not a folder of `laescan train`: {error}"
        raise ValueError(msg) from error


class MasksWanted(Exception):
    """Stage 1 is done and a person has to draw: the folders of candidates that wait for it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)
        each = "\n".join(f"  laescan annotate {folder}" for folder in folders)
        super().__init__(f"masks are wanted; draw them, then give the same command again:\n{each}")


def run(plan: Plan, seen: SeenSet, folder: Path, *, tell: Tell = log.info) -> None:
    """All arms and seeds of a plan, each at most once.

    Raises TypeError for anything but a seen set, ValueError for an unknown arm, MasksWanted when people are to draw.
    """
    if not isinstance(seen, SeenSet):  # a UnseenSet, or the whole TaskData
        msg = f"the trainer takes a SeenSet, not {type(seen).__name__}: what is unseen stays unseen"  # type: ignore[unreachable]
        raise TypeError(msg)
    plan.check()
    plan.keep(folder)
    waiting: list[Path] = []
    for seed in range(plan.seeds):
        for name in plan.arms:
            if (arm_folder(folder, name, seed) / "done").exists():
                continue
            tell(f"{name}, seed {seed}: {ARMS[name].words}")
            try:
                _train(plan, seen, ARMS[name], seed, folder=folder, own=arm_folder(folder, name, seed))
            except MasksWanted as wanted:
                waiting += wanted.folders
    if waiting:
        raise MasksWanted(waiting)


def arm_folder(folder: Path, arm: str, seed: int) -> Path:
    """Where one arm and seed lives."""
    return folder / "arms" / arm / str(seed)


def load_arm(plan: Plan, folder: Path, name: str, seed: int) -> Method:
    """A finished arm's method with its best weights, in eval mode."""
    method = ARMS[name].method(plan.scale)
    state = torch.load(arm_folder(folder, name, seed) / "best.pt", map_location="cpu", weights_only=True)
    method.load_state_dict(state)
    return method.eval()


def _train(plan: Plan, seen: SeenSet, arm: Arm, seed: int, *, folder: Path, own: Path) -> None:
    """Stage 1 (or what an arm like it has left), selection, stage 2."""
    method, scale = _first_stage(plan, seen, arm, seed, folder), plan.scale
    if 0 < arm.masks < 1:
        chosen = _candidates(plan, seen, arm, seed, method=method, folder=own / "candidates")
        candidates = [masked.sample for masked in chosen]
    else:
        everything = [item for item in seen.train if item.mask and not item.is_real] if arm.masks else []
        candidates = [opened(item, with_mask=True) for item in everything]
    held_out = candidates[::10] if len(candidates) >= 10 else []
    trained = [c for number, c in enumerate(candidates) if number % 10] if held_out else candidates
    if isinstance(method, LocalityAware):
        method.frozen_bn = arm.batch_norm == "frozen"
    course = Course(
        2, seed, seen.train, seen.val, scale.lr_2, scale.epochs_2, 0, trained, held_out, augment=arm.augment
    )
    Stage(method, course, scale, own).run()


def _first_stage(plan: Plan, seen: SeenSet, arm: Arm, seed: int, folder: Path) -> Method:
    """The arm's method as stage 1 leaves it: L_rec + L_lat on everything, no mask (8.7)."""
    scale, before = plan.scale, arm.before_masks
    torch.manual_seed(seed)
    vgg = Path(plan.vgg) if plan.vgg else None
    key = hashlib.sha256(repr(before).encode()).hexdigest()[:10]
    course = Course(1, seed, seen.train, seen.val, scale.lr_1, scale.epochs_1, scale.patience, augment=arm.augment)
    shared = Stage(before.method(scale, vgg), course, scale, folder / "stage1" / f"{key}-{seed}").run()
    method = arm.method(scale, vgg)
    method.load_state_dict(shared.state_dict())
    return method


def _candidates(plan: Plan, seen: SeenSet, arm: Arm, seed: int, *, method: Method, folder: Path) -> list[Masked]:
    """Select (once; the folder stands for it) and read the masks; raises MasksWanted while people are to draw."""
    if not (folder / "candidates.json").exists():
        _write_folder(plan, seen, _selected(plan, seen, arm, seed, method), method, folder)
    if plan.masks == "human":
        noted = read_sources(folder)
        masked = {found.name for found in read_masks(folder)}
        if any(c.name not in noted and c.name not in masked for c in read_candidates(folder)):
            raise MasksWanted([folder])
    return read_masks(folder)


def _selected(plan: Plan, seen: SeenSet, arm: Arm, seed: int, method: Method) -> list[Item]:
    """Training fakes, the most challenging first (8.6)."""
    fakes = [item for item in seen.train if not item.is_real and (item.mask or item.source or plan.masks == "human")]
    watched = watch(method, len(fakes), lambda index: opened(fakes[index]))
    looked = [
        Looked(item.name, item.group, float(a_real), float(a_fake))
        for item, a_real, a_fake in zip(fakes, watched.a_real, watched.a_fake, strict=True)
    ]
    options = {"ranking": arm.ranking, "per_group": plan.scale.per_group, "seed": seed}
    names = select(looked, arm.masks, images=len(seen.train), **options)  # type: ignore[arg-type]
    by_name = {item.name: item for item in fakes}
    return [by_name[name] for name in names]


def _write_folder(plan: Plan, seen: SeenSet, chosen: Sequence[Item], method: Method, folder: Path) -> None:
    """The candidates with maps and originals, and their automatic masks unless people are to draw them."""
    samples = [opened(item) for item in chosen]
    maps = watch(method, len(samples), samples.__getitem__).maps if samples else None
    reals = {item.name: item for item in seen.train if item.is_real}
    originals = [reals[item.source].crop() for item in chosen if item.source in reals]
    complete = originals if len(originals) == len(chosen) else None
    # candidates.json is written last, so that it stands for the masks as well.
    if plan.masks == "automatic":
        for number, item in enumerate(chosen):
            mask = item.mask() if item.mask else difference_mask(item.crop(), reals[item.source].crop())
            write_mask(folder, f"{number + 1:04}", mask, Source.AUTOMATIC)
    write_candidates(folder, samples, None if maps is None else list(maps), complete)
    whole(folder / "items.json", json.dumps([item.name for item in chosen]).encode())
