"""A picture with a hole in, the hole filled with patches found elsewhere in the picture out.

Content-aware filling, as image editors do it: coarse to fine, each patch of the hole looks for its likeness outside
(after Wexler et al. 2007 and Barnes et al. 2009), overlapping patches vote for each pixel. Own implementation.
One reason: what it fills has true texture and true noise, where diffusion (Telea, Navier-Stokes) leaves smoothness.
"""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.training.masks import Mask
from scanner.training.portraits import Pixels

Offsets = NDArray[np.int32]  # (n, 2) dy, dx from a pixel of the hole to the pixel that it resembles

REACH = 3  # a patch has 7 x 7 pixels
FINE_REACH = 2  # ... and 5 x 5 where its place is nearly known: half of the work
COARSE_PX = 96  # the side at which every patch is compared with every other
KNOWN = 1500  # patches that are looked at there


def fill(picture: Pixels, hole: Mask, rng: Generator) -> Pixels:
    """The picture (H, W, 3) with its hole (H, W; above 0.5) filled; outside nothing changes.

    A hole that leaves no whole patch around it is filled by Telea's method.
    """
    levels = max(1, round(np.log2(max(picture.shape[:2]) / COARSE_PX)) + 1)
    holes = [hole > 0.5]
    pictures = [picture]
    for _ in range(levels - 1):
        size = pictures[-1].shape[1] // 2, pictures[-1].shape[0] // 2
        pictures.append(np.asarray(cv2.resize(pictures[-1], size, interpolation=cv2.INTER_AREA), np.uint8))
        holes.append(cv2.resize(holes[-1].astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0)
    first = cv2.inpaint(pictures[-1], holes[-1].astype(np.uint8) * 255, 3, cv2.INPAINT_TELEA)
    now, offsets = first.astype(np.float32), None
    for level in reversed(range(levels)):
        known = _known(holes[level])
        if not known.any() or not holes[level].any():
            return np.asarray(cv2.inpaint(picture, (hole > 0.5).astype(np.uint8) * 255, 3, cv2.INPAINT_TELEA), np.uint8)
        if offsets is None:
            for _ in range(4):
                offsets = _matched(now, holes[level], known, rng)
                now = _voted(now, holes[level], offsets)
            continue
        shape = pictures[level].shape[1], pictures[level].shape[0]
        grown = np.asarray(cv2.resize(now, shape, interpolation=cv2.INTER_LINEAR), np.float32)
        now = np.where(holes[level][..., None], grown, pictures[level]).astype(np.float32)
        offsets = _refined(now, holes[level], known, _doubled(offsets, holes[level + 1], holes[level]), rng)
        now = _voted(now, holes[level], offsets)
    return np.where(holes[0][..., None], np.clip(now.round(), 0, 255), picture).astype(np.uint8)


def _known(hole: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Where a whole patch lies inside the picture and outside the hole."""
    size = 2 * REACH + 1
    grown = cv2.dilate(hole.astype(np.uint8), np.ones((size, size), np.uint8)) > 0
    known = ~grown
    known[:REACH], known[-REACH:], known[:, :REACH], known[:, -REACH:] = False, False, False, False
    return np.asarray(known, np.bool_)


def _patches(picture: NDArray[np.float32], at: NDArray[np.int64], reach: int = FINE_REACH) -> NDArray[np.float32]:
    """The patches around pixels (n, 2) y, x as rows of all their values; the picture's border is repeated."""
    step = np.arange(-reach, reach + 1)
    y = np.clip(at[:, 0, None, None] + step[:, None], 0, picture.shape[0] - 1)
    x = np.clip(at[:, 1, None, None] + step, 0, picture.shape[1] - 1)
    return np.asarray(picture[y, x].reshape(len(at), -1), np.float32)


def _matched(now: NDArray[np.float32], hole: NDArray[np.bool_], known: NDArray[np.bool_], rng: Generator) -> Offsets:
    """For each pixel of the hole the offset to the most similar of up to KNOWN known patches."""
    inside, outside = np.argwhere(hole), np.argwhere(known)
    if len(outside) > KNOWN:
        outside = outside[rng.choice(len(outside), KNOWN, replace=False)]
    a, b = _patches(now, inside, REACH), _patches(now, outside, REACH)
    distance = (b * b).sum(1)[None] - 2 * a @ b.T  # |a|^2 is the same for all candidates
    return np.asarray(outside[distance.argmin(1)] - inside, np.int32)


def _doubled(offsets: Offsets, coarse: NDArray[np.bool_], hole: NDArray[np.bool_]) -> Offsets:
    """Offsets of the coarser level for each pixel of this one."""
    field = np.zeros((*coarse.shape, 2), np.int32)
    field[coarse] = offsets
    inside = np.argwhere(hole)
    y, x = (np.minimum(inside[:, axis] // 2, coarse.shape[axis] - 1) for axis in (0, 1))
    return np.asarray(2 * field[y, x], np.int32)


def _refined(
    now: NDArray[np.float32], hole: NDArray[np.bool_], known: NDArray[np.bool_], offsets: Offsets, rng: Generator
) -> Offsets:
    """Each offset bettered by those of its neighbours and by small random steps (Barnes et al. 2009)."""
    inside = np.argwhere(hole)
    mine = _patches(now, inside)
    best, cost = offsets.copy(), _cost(now, known, inside, offsets, mine)
    for shift in ((0, 1), (1, 0), (0, -1), (-1, 0), None, None):
        candidate = best + rng.integers(-4, 5, best.shape, np.int32) if shift is None else _shifted(best, hole, shift)
        found = _cost(now, known, inside, candidate, mine)
        better = found < cost
        best[better], cost[better] = candidate[better], found[better]
    return best


def _shifted(offsets: Offsets, hole: NDArray[np.bool_], shift: tuple[int, int]) -> Offsets:
    """What the neighbour of each pixel has found; at the hole's border its own."""
    field = np.zeros((*hole.shape, 2), np.int32)
    field[hole] = offsets
    there = np.roll(hole, shift, (0, 1)) & hole
    moved = np.where(there[..., None], np.roll(field, shift, (0, 1)), field)
    return np.asarray(moved[hole], np.int32)


def _cost(
    now: NDArray[np.float32],
    known: NDArray[np.bool_],
    inside: NDArray[np.int64],
    offsets: Offsets,
    mine: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Mean squared difference of each patch and the one its offset points to; infinite where none is known."""
    there = inside + offsets
    legal = ((there >= 0) & (there < known.shape)).all(1)
    there = np.clip(there, 0, np.array(known.shape) - 1)
    legal &= known[there[:, 0], there[:, 1]]
    cost = np.square(_patches(now, there) - mine).mean(1)
    return np.where(legal, cost, np.inf).astype(np.float32)


def _voted(now: NDArray[np.float32], hole: NDArray[np.bool_], offsets: Offsets) -> NDArray[np.float32]:
    """Each pixel of the hole as the mean of what the 3 x 3 patches over it say: more would blur the texture."""
    height, width = hole.shape
    field = np.zeros((height, width, 2), np.int32)
    field[hole] = offsets
    inside = np.argwhere(hole)
    total, count = np.zeros((len(inside), 3), np.float32), np.zeros((len(inside), 1), np.float32)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            y, x = np.clip(inside[:, 0] + dy, 0, height - 1), np.clip(inside[:, 1] + dx, 0, width - 1)
            there = inside + field[y, x]
            says = hole[y, x] & (there >= 0).all(1) & (there < (height, width)).all(1)
            there = np.clip(there, 0, (height - 1, width - 1))
            says &= ~hole[there[:, 0], there[:, 1]]
            total += now[there[:, 0], there[:, 1]] * says[:, None]
            count += says[:, None]
    out = now.copy()
    out[inside[:, 0], inside[:, 1]] = np.where(count > 0, total / np.maximum(count, 1), now[hole])
    return out
