"""The paper's three tasks, and the types that keep what is unseen out of training.

In: items (pictures that are opened when they are needed). Out: `TaskData`, a `SeenSet` and an `UnseenSet`.
One reason: a trainer takes a `SeenSet` and nothing else, so that no number called "unseen" can be a seen one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

import cv2
import numpy as np

from scanner.training.masks import Mask
from scanner.training.portraits import Pixels

TaskName = Literal["face-swap", "attributes", "inpainting"]
REAL = "real"


@dataclass(frozen=True)
class Item:
    """One crop or tile of a task: what is known of it without opening it, and how to open it.

    All crops of one task have one size, (S, S, 3) uint8 RGB; masks are (S, S) float32 in 0..1, 1 = forged.
    """

    name: str  # unique in its task and stable for ever: a relative path without suffix, e.g. "Face2Face/000_003/0012"
    family: str  # the forgery method, or REAL
    identity: str  # who or what is shown; never in two splits
    group: (
        str  # the video (or picture) that it comes from: candidates are capped by it, video-level scores pooled by it
    )
    crop: Callable[[], Pixels]
    mask: Callable[[], Mask] | None = None  # the automatic mask of a fake; None where the data set has none
    source: str = ""  # name of the real item that it was forged from, pixel for pixel aligned; "" when there is none

    @property
    def is_real(self) -> bool:
        """Whether nothing was forged."""
        return self.family == REAL


@dataclass(frozen=True)
class SeenSet:
    """All that training, selection and calibration may touch: the seen families, split by identity.

    Raises TypeError for anything but items, ValueError for a foreign family or an identity in two splits.
    """

    families: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]  # measured, never trained or chosen on

    def __post_init__(self) -> None:
        for name in ("train", "val", "test"):
            _check(getattr(self, name), self.families, f"seen {name}")
        for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
            _check_apart(getattr(self, one), getattr(self, other), f"seen {one} and {other}")


@dataclass(frozen=True)
class UnseenSet:
    """For measuring only, once everything is decided: another method for the same task, with real pictures beside it.

    Not a `SeenSet`, nor does it have its fields: a trainer cannot take it.
    """

    families: tuple[str, ...]
    measured: tuple[Item, ...]

    def __post_init__(self) -> None:
        _check(self.measured, self.families, "unseen")


@dataclass(frozen=True)
class TaskData:
    """One task, ready to train on and to measure. Raises ValueError when something unseen could have been seen."""

    task: TaskName
    seen: SeenSet
    unseen: UnseenSet
    origin: str  # in words: which data these are, for the report
    masks: str  # in words: where the masks come from, for the report

    def __post_init__(self) -> None:
        if both := set(self.seen.families) & set(self.unseen.families):
            msg = f"{', '.join(sorted(both))} cannot be both seen and unseen"
            raise ValueError(msg)
        for name in ("train", "val"):
            _check_apart(getattr(self.seen, name), self.unseen.measured, f"seen {name} and unseen")


def at_size(data: TaskData, side_px: int) -> TaskData:
    """The same task with crops and masks of this side, averaged down as they are opened."""

    def small(item: Item) -> Item:
        crop, mask = item.crop, item.mask
        return replace(
            item,
            crop=lambda: np.asarray(_shrunk(crop(), side_px), np.uint8),
            mask=mask and (lambda: np.asarray(_shrunk(mask(), side_px), np.float32)),
        )

    def all_of(items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(small(item) for item in items)

    seen = data.seen
    return replace(
        data,
        seen=replace(seen, train=all_of(seen.train), val=all_of(seen.val), test=all_of(seen.test)),
        unseen=replace(data.unseen, measured=all_of(data.unseen.measured)),
    )


def _shrunk(picture: Pixels | Mask, side_px: int) -> cv2.typing.MatLike:
    return cv2.resize(picture, (side_px, side_px), interpolation=cv2.INTER_AREA)


@dataclass(frozen=True)
class Pairing:
    """Which of our own families stand in for a task's methods, and why."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]
    reason: str


OWN: dict[TaskName, Pairing] = {
    "face-swap": Pairing(
        ("self_blend",),
        ("swap", "mesh_swap"),
        "all end in a blended face, but the pasted pixels are the same person's in the seen family and another "
        "person's in the unseen ones, so colour statistics, geometry and seam differ",
    ),
    "attributes": Pairing(
        ("attribute",),
        ("ageing", "glasses"),
        "recoloured and retouched regions against exchanged skin frequencies and objects drawn on: no pixel operation "
        "is shared",
    ),
    "inpainting": Pairing(
        ("telea", "navier_stokes"),
        ("patch_copy", "patch_fill"),
        "diffusion leaves a hole too smooth; copied patches are as sharp as the picture itself",
    ),
}
"""What is trained on and held out where no data set is given; `--seen` and `--unseen` may name other families."""


def task_name(text: str) -> TaskName:
    """Raises ValueError for anything but one of the three tasks."""
    for name in get_args(TaskName):
        if text == name:
            return name  # type: ignore[no-any-return]
    msg = f"no task {text!r}; there are {', '.join(get_args(TaskName))}"
    raise ValueError(msg)


def _check(items: Sequence[Item], families: Sequence[str], where: str) -> None:
    if not isinstance(items, tuple) or not all(isinstance(item, Item) for item in items):
        msg = f"{where} takes a tuple of items"
        raise TypeError(msg)
    if foreign := {item.family for item in items} - {*families, REAL}:
        msg = f"{where} holds {', '.join(sorted(foreign))}, which it does not name"
        raise ValueError(msg)
    if len({item.name for item in items}) != len(items):
        msg = f"{where} holds two items of one name"
        raise ValueError(msg)


def _check_apart(one: Sequence[Item], other: Sequence[Item], where: str) -> None:
    if shared := {item.identity for item in one} & {item.identity for item in other}:
        msg = f"{where} share {len(shared)} identities, e.g. {min(shared)}"
        raise ValueError(msg)
