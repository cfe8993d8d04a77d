"""Portraits in, forgeries with exact masks out: more families, as far from the first six as could be made.

    mesh_swap   another person's face, warped triangle by triangle onto this one's landmarks
    expression  a part of another picture of the same person set in: a true change of expression (London pairs)
    glasses     spectacles or sunglasses drawn onto the face, with shadow and glint
    ageing      the skin's middle frequencies (wrinkles, pores) replaced by another person's or exaggerated
    splice      a piece of another picture, turned and scaled, pasted somewhere
    contextual  a region removed and filled with patches found elsewhere in the picture

`FAMILIES` holds these and those of `forge`. Of all six nothing changes where the mask is zero.
"""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from scanner.training import degrade, forge, masks, mesh, patches
from scanner.training.accessories import glasses
from scanner.training.forge import Family, Forgery
from scanner.training.masks import Mask
from scanner.training.portraits import Pixels, Portrait, region


def mesh_swap(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """The donor's face through a mesh of landmarks, sometimes as soft as a generator's, tinted to fit, blended."""
    size, corners = portrait.canvas.shape[0], list(mesh.corners())
    face = donor.canvas
    if rng.random() < 0.4:  # most swaps are rendered at 64 to 256 px and enlarged
        small = degrade.rescale(face, rng.uniform(0.25, 0.7), cv2.INTER_AREA)
        face = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    warped, meshed = mesh.warp(face, donor.shape[corners], portrait.shape[corners])
    meshed = np.asarray(cv2.erode(meshed, np.ones((5, 5), np.uint8)), np.float32)  # cloning looks one pixel further
    part = str(rng.choice(["inner", "inner", "oval", "lower"]))
    mask = masks.jittered(region(portrait.shape, part), rng, size) * meshed
    if rng.random() < 0.85 and (mask > 0.5).any():
        warped = _tinted_like(warped, portrait.canvas, mask)
    if rng.random() < 0.3:
        return _cloned(warped, portrait.canvas, mask)
    soft = np.asarray(masks.feather(mask, rng, widest=0.06) * meshed, np.float32)  # outside the mesh there is no face
    return _blended(warped, portrait.canvas, soft), soft


def expression(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Mouth, eyes, the lower face or all of it from another picture of the same person, registered to this one.

    Raises ValueError when the donor is somebody else; `donor_for` chooses rightly.
    """
    if donor.identity != portrait.identity:
        msg = f"an expression of {portrait.identity} cannot come from {donor.identity}"
        raise ValueError(msg)
    size = portrait.canvas.shape[0]
    other = registered(donor.canvas, portrait.canvas, masks.named(portrait.shape, "oval", size))
    part = str(rng.choice(["mouth", "lower", "eyes", "oval"], p=[0.35, 0.35, 0.15, 0.15]))
    hard = masks.polygon(region(portrait.shape, part), size)
    mask = masks.bend(np.asarray(cv2.dilate(hard, np.ones((9, 9), np.uint8)), np.float32), rng, strength=0.006)
    other = _tinted_like(other, portrait.canvas, mask)
    if rng.random() < 0.4:
        return _cloned(other, portrait.canvas, mask)
    soft = masks.feather(mask, rng, widest=0.05)
    return _blended(other, portrait.canvas, soft), soft


def ageing(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Another person's middle frequencies on this face's form and colour, or its own ones about doubled."""
    size, corners = portrait.canvas.shape[0], list(mesh.corners())
    fine, coarse = size * rng.uniform(0.001, 0.003), size * rng.uniform(0.008, 0.02)
    own = _band(portrait.canvas, fine, coarse)
    mask = masks.feather(masks.named(portrait.shape, "oval", size), rng, widest=0.08)
    if rng.random() < 0.6:
        warped, meshed = mesh.warp(donor.canvas, donor.shape[corners], portrait.shape[corners])
        whole = np.where(meshed[..., None] > 0, warped, portrait.canvas)
        new = _band(np.asarray(whole, np.uint8), fine, coarse) * rng.uniform(0.8, 1.6)
    else:
        new = own * rng.uniform(1.7, 2.6)
    if rng.random() < 0.5:  # eyes and mouth stay: age shows in the skin
        kept = np.maximum(masks.named(portrait.shape, "eyes", size), masks.named(portrait.shape, "mouth", size))
        mask = mask * (1 - np.asarray(cv2.GaussianBlur(kept, (0, 0), size * 0.008), np.float32))
    aged = np.clip(portrait.canvas - own + new, 0, 255).astype(np.uint8)
    return _blended(aged, portrait.canvas, mask), mask


def splice(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A free-form piece of the donor's picture, turned, scaled, moved, maybe tinted, with a hard or soft edge."""
    size = portrait.canvas.shape[0]
    mask = masks.blob(rng, size)
    middle = (size / 2, size / 2)
    turn = cv2.getRotationMatrix2D(middle, float(rng.uniform(-40, 40)), float(rng.uniform(0.6, 1.6)))
    turn[:, 2] += rng.uniform(-0.25, 0.25, 2) * size
    border = cv2.BORDER_REFLECT_101
    moved = cv2.warpAffine(donor.canvas, turn, (size, size), flags=cv2.INTER_CUBIC, borderMode=border)
    piece = np.asarray(moved, np.uint8)
    if rng.random() < 0.3:
        piece = _tinted_like(piece, portrait.canvas, mask)
    if rng.random() < 0.5:
        mask = masks.feather(mask, rng, widest=0.02)
    return _blended(piece, portrait.canvas, mask), mask


def contextual(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A free-form region or a part of the face removed and filled by `patches.fill`."""
    hole = masks.hole(portrait.shape, rng, portrait.canvas.shape[0])
    return patches.fill(portrait.canvas, hole, rng), hole


NEW: dict[str, Family] = {
    "mesh_swap": mesh_swap,
    "expression": expression,
    "glasses": glasses,
    "ageing": ageing,
    "splice": splice,
    "contextual": contextual,
}
FAMILIES: dict[str, Family] = {**forge.FAMILIES, **NEW}
OF_ONE_PERSON = frozenset({"expression"})
"""Families that need two pictures of one person."""


def forged(
    portrait: Portrait, donor: Portrait, family: str, rng: Generator, families: Mapping[str, Family] = FAMILIES
) -> Forgery:
    """One forgery of any family, as `forge.forge` makes it."""
    return forge.forge(portrait, donor, family, rng, families)


def donor_for(portrait: Portrait, portraits: Sequence[Portrait], family: str, rng: Generator) -> Portrait | None:
    """Whom a forgery of this portrait may take pixels from: another picture of the same person for an expression.

    None when there is nobody.
    """
    same = family in OF_ONE_PERSON
    others = [p for p in portraits if p is not portrait and (p.identity == portrait.identity) == same]
    return others[int(rng.integers(len(others)))] if others else None


def cast(portrait: Portrait, portraits: Sequence[Portrait], family: str, rng: Generator) -> tuple[Portrait, Portrait]:
    """A victim and a donor that this family can forge from: `portrait` where it has a donor, else one that has.

    Raises ValueError when a family needs two pictures of one person and nobody has two.
    """
    donor = donor_for(portrait, portraits, family, rng)
    if donor is not None:
        return portrait, donor
    if family not in OF_ONE_PERSON:
        return portrait, portrait  # one person alone: most families need no donor
    for index in rng.permutation(len(portraits)):
        donor = donor_for(portraits[index], portraits, family, rng)
        if donor is not None:
            return portraits[index], donor
    msg = f"{family} needs two pictures of one person, and these portraits have none"
    raise ValueError(msg)


def registered(moving: Pixels, fixed: Pixels, where: Mask) -> Pixels:
    """`moving` bent affinely onto `fixed`, by what they show inside `where` (ECC, Evangelidis & Psarakis 2008).

    Left as it is when they have too little in common.
    """
    half = (fixed.shape[1] // 2, fixed.shape[0] // 2)
    grey = [
        cv2.resize(cv2.cvtColor(p, cv2.COLOR_RGB2GRAY), half, interpolation=cv2.INTER_AREA) for p in (fixed, moving)
    ]
    inside = cv2.resize((where > 0.5).astype(np.uint8), half, interpolation=cv2.INTER_NEAREST)
    inside[inside.shape[0] * 6 // 10 :] = 0  # the upper face: a smile must not pull the whole face along
    until = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 30, 1e-3)
    try:
        start = np.eye(2, 3, dtype=np.float32)
        _, matrix = cv2.findTransformECC(grey[0], grey[1], start, cv2.MOTION_AFFINE, until, inside, 5)
    except cv2.error:
        return moving
    matrix = np.asarray(matrix, np.float64)
    matrix[:, 2] *= 2
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    out = cv2.warpAffine(moving, matrix, fixed.shape[1::-1], flags=flags, borderMode=cv2.BORDER_REFLECT_101)
    return np.asarray(out, np.uint8)


def _band(picture: Pixels, fine: float, coarse: float) -> NDArray[np.float32]:
    """What lies between two blurs: a band of frequencies."""
    p = picture.astype(np.float32)
    return np.asarray(cv2.GaussianBlur(p, (0, 0), max(fine, 0.3)) - cv2.GaussianBlur(p, (0, 0), coarse), np.float32)


def _blended(inside: Pixels, outside: Pixels, mask: Mask) -> Pixels:
    alpha = mask.astype(np.float32)
    return np.asarray(cv2.blendLinear(inside, outside, alpha, 1 - alpha), np.uint8)


def _cloned(inside: Pixels, outside: Pixels, mask: Mask) -> tuple[Pixels, Mask]:
    """Seamless cloning (Perez et al. 2003) kept strictly inside the hard mask, and that mask."""
    hard = (mask > 0.5).astype(np.uint8)
    hard[:2], hard[-2:], hard[:, :2], hard[:, -2:] = 0, 0, 0, 0
    x, y, w, h = cv2.boundingRect(hard)
    if w < 3 or h < 3:
        return outside, np.zeros_like(mask)
    middle = (x + w // 2, y + h // 2)
    cloned = cv2.seamlessClone(inside, outside, hard * 255, middle, cv2.NORMAL_CLONE)
    return np.where(hard[..., None] > 0, cloned, outside).astype(np.uint8), hard.astype(np.float32)


def _tinted_like(source: Pixels, target: Pixels, mask: Mask) -> Pixels:
    """Mean of each Lab channel inside the mask, and half of its spread, taken over from the target."""
    inside = mask > 0.5
    if not inside.any():
        return source
    lab = [cv2.cvtColor(p, cv2.COLOR_RGB2LAB).astype(np.float32) for p in (source, target)]
    (mean_s, std_s), (mean_t, std_t) = ((p[inside].mean(0), p[inside].std(0) + 1) for p in lab)
    matched = (lab[0] - mean_s) * np.sqrt(std_t / std_s) + mean_t
    return np.asarray(cv2.cvtColor(np.clip(matched, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)
