"""Portraits in, forgeries with their exact masks out, by families that differ in mechanism.

    self_blend   the face blended with an altered copy of itself (after Shiohara & Yamasaki, CVPR 2022)
    resynthesis  a region redrawn from few coefficients, as generators do: low detail, upsampling traces
    attribute    hair, skin, lips, eyes or brows recoloured, smoothed or roughened
    warp         mouth, eyes, brows, nose or jaw moved, as in reenactment
    inpaint      a region removed and filled (Telea, Navier-Stokes, patch copy)
    swap         another person's face, landmark-aligned, colour-matched, blended (alpha, feather or Poisson)

Families exist so that one can be held out whole: a detector that only knows what it saw is worth little.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator

from scanner.training import degrade, masks
from scanner.training.masks import Mask
from scanner.training.portraits import Pixels, Points, Portrait, region


@dataclass(frozen=True)
class Forgery:
    """A forged canvas and what was forged: mask (H, W) float32, 1 where the pixels are wholly new."""

    picture: Pixels
    mask: Mask
    family: str


def self_blend(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A colour-, sharpness- and geometry-shifted copy of the face blended back into the picture.

    One time of four the surroundings are altered and the face stays: what is forged, and in the mask, is the part that
    does not belong.
    """
    size = portrait.canvas.shape[0]
    altered = _shifted(_altered(portrait.canvas, rng), rng)
    mask = masks.face_like(portrait.shape, rng, size) * rng.choice([0.4, 0.6, 0.8, 1, 1, 1])
    inside, outside = (altered, portrait.canvas) if rng.random() < 0.75 else (portrait.canvas, altered)
    return _blend(inside, outside, mask), mask


def resynthesis(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A region rebuilt from a coarse version of itself: the look of an autoencoder's output pasted in."""
    size = portrait.canvas.shape[0]
    coarse = portrait.canvas
    small = max(24, int(size / rng.uniform(2.5, 7)))
    coarse = np.asarray(cv2.resize(coarse, (small, small), interpolation=cv2.INTER_AREA), np.uint8)
    for _ in range(int(np.ceil(np.log2(size / small)))):  # doubling with a learned-kernel-like filter, as decoders do
        up = cv2.INTER_NEAREST if rng.random() < 0.35 else cv2.INTER_LINEAR if rng.random() < 0.5 else cv2.INTER_CUBIC
        coarse = np.asarray(cv2.resize(coarse, None, fx=2, fy=2, interpolation=up), np.uint8)
        coarse = _sharpened(coarse, rng.uniform(0, 1.2), 0.8)
    coarse = np.asarray(cv2.resize(coarse, (size, size), interpolation=cv2.INTER_AREA), np.uint8)
    drift = masks.moved(coarse, masks.displacement(rng, size, 0.006))
    mask = masks.face_like(portrait.shape, rng, size)
    return _blend(_tinted(drift, rng, 6), portrait.canvas, mask), mask


def attribute(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """One attribute edited in place: a new hair, skin, lip or eye colour, smoothed or aged skin, darker brows."""
    size = portrait.canvas.shape[0]
    name = str(rng.choice(["hair", "oval", "mouth", "eyes", "brows", "lower"], p=[0.25, 0.3, 0.15, 0.1, 0.1, 0.1]))
    if name == "brows":
        hard = np.maximum(*(masks.named(portrait.shape, f"{side}_brow", size) for side in ("left", "right")))
    else:
        hard = masks.named(portrait.shape, name, size)
    mask = masks.feather(masks.bend(hard, rng, strength=0.01), rng, widest=0.05)
    edit = rng.choice(["colour", "smooth", "rough"], p=[0.5, 0.25, 0.25] if name != "hair" else [0.8, 0.1, 0.1])
    if edit == "colour":
        edited = _recoloured(portrait.canvas, rng)
    elif edit == "smooth":
        edited = np.asarray(cv2.bilateralFilter(portrait.canvas, 9, rng.uniform(30, 80), rng.uniform(4, 9)), np.uint8)
    else:
        edited = _sharpened(portrait.canvas, rng.uniform(1.0, 3.0), rng.uniform(1.0, 4.0))
    return _blend(edited, portrait.canvas, mask), mask


def warp(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """Parts of the face pushed by smooth bumps; half of the time a little softened, as rendered pixels are."""
    size = portrait.canvas.shape[0]
    parts = ["mouth", "eyes", "nose", "lower", "left_eye", "right_eye"]
    name = str(rng.choice(parts, p=[0.35, 0.2, 0.1, 0.15, 0.1, 0.1]))
    hard = masks.jittered(region(portrait.shape, name), rng, size)
    reach = np.asarray(cv2.GaussianBlur(hard, (0, 0), size * rng.uniform(0.015, 0.04)), np.float32)
    push = rng.normal(0, 0.02 * size, 2) + masks.displacement(rng, size, 0.012, grain=8)
    field = (push * reach[..., None]).astype(np.float32)
    moved = masks.moved(portrait.canvas, field)
    if rng.random() < 0.5:
        moved = np.asarray(cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.5, 1.2)), np.uint8)
        return _blend(moved, portrait.canvas, reach), reach
    return moved, np.clip(np.hypot(field[..., 0], field[..., 1]) / 2.0, 0, 1)  # wholly new from 2 px on


def inpaint(portrait: Portrait, _donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """A region removed and filled by diffusion or by pixels copied from elsewhere in the picture."""
    size = portrait.canvas.shape[0]
    hole = masks.hole(portrait.shape, rng, size)
    how = rng.choice(["telea", "navier_stokes", "copy", "poisson_copy"])
    if how in {"telea", "navier_stokes"}:
        method = cv2.INPAINT_TELEA if how == "telea" else cv2.INPAINT_NS
        filled = cv2.inpaint(portrait.canvas, (hole * 255).astype(np.uint8), float(rng.uniform(2, 6)), method)
        if rng.random() < 0.5:
            filled = degrade.noise(np.asarray(filled, np.uint8), rng.uniform(0.5, 3), rng)
        return _blend(np.asarray(filled, np.uint8), portrait.canvas, hole), hole
    shift = np.zeros((size, size, 2), np.float32) + rng.choice([-1, 1], 2) * rng.uniform(0.08, 0.25, 2) * size
    copied = masks.moved(portrait.canvas, shift.astype(np.float32))
    if how == "poisson_copy":
        return _poisson(copied, portrait.canvas, hole), hole
    soft = masks.feather(hole, rng, widest=0.03)
    return _blend(copied, portrait.canvas, soft), soft


def swap(portrait: Portrait, donor: Portrait, rng: Generator) -> tuple[Pixels, Mask]:
    """The donor's face, warped onto this one's landmarks, colour-matched and blended."""
    size = portrait.canvas.shape[0]
    source = _onto(donor, portrait.shape)
    mask = masks.jittered(region(portrait.shape, "inner"), rng, size)
    if rng.random() < 0.8:
        source = _colour_matched(source, portrait.canvas, mask)
    if rng.random() < 0.35:
        return _poisson(source, portrait.canvas, mask), mask
    soft = masks.feather(mask, rng, widest=0.08)
    return _blend(source, portrait.canvas, soft), soft


Family = Callable[[Portrait, Portrait, Generator], tuple[Pixels, Mask]]
FAMILIES: dict[str, Family] = {
    "self_blend": self_blend,
    "resynthesis": resynthesis,
    "attribute": attribute,
    "warp": warp,
    "inpaint": inpaint,
    "swap": swap,
}

VISIBLE = 5.0
"""A forgery must change its region by this many grey levels on average, or it is not one."""


def forge(
    portrait: Portrait, donor: Portrait, family: str, rng: Generator, families: Mapping[str, Family] = FAMILIES
) -> Forgery:
    """One forgery of a family; draws again (at most 8 times) while nothing visible changed."""
    for _ in range(8):
        picture, mask = families[family](portrait, donor, rng)
        if visible(portrait.canvas, picture, mask):
            break
    return Forgery(picture, mask.astype(np.float32), family)


def visible(original: Pixels, picture: Pixels, mask: Mask) -> bool:
    """Whether the masked part has changed by VISIBLE grey levels on average and covers 0.3 % of the picture."""
    change, area = (
        # A quarter of the size: enough to tell whether something changed, at a tenth of the cost.
        cv2.resize(p, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
        for p in (cv2.absdiff(picture, original), mask.astype(np.float32))
    )
    return float((change.mean(2) * area).sum()) > VISIBLE * float(area.sum()) and float(area.mean()) > 0.003


def _blend(inside: Pixels, outside: Pixels, mask: Mask) -> Pixels:
    alpha = mask.astype(np.float32)
    return np.asarray(cv2.blendLinear(inside, outside, alpha, 1 - alpha), np.uint8)


def _poisson(inside: Pixels, outside: Pixels, mask: Mask) -> Pixels:
    """Seamless cloning (Perez et al. 2003); the region must not touch the border."""
    hard = (mask > 0.5).astype(np.uint8) * 255
    hard[:2], hard[-2:], hard[:, :2], hard[:, -2:] = 0, 0, 0, 0
    x, y, w, h = cv2.boundingRect(hard)
    if w < 3 or h < 3:
        return outside
    clone = cv2.seamlessClone(inside, outside, hard.copy(), (x + w // 2, y + h // 2), cv2.NORMAL_CLONE)
    # OpenCV redraws the mask it is given, and solves for the whole box of the region: put back what is not in the mask.
    return _blend(np.asarray(clone, np.uint8), outside, np.asarray(hard / 255, np.float32))


def _altered(picture: Pixels, rng: Generator) -> Pixels:
    """A copy with another colour and another sharpness: what sets a pasted face apart."""
    size = picture.shape[0]
    altered = _tinted(picture, rng, 14) if rng.random() < 0.8 else picture
    kind = rng.choice(["sharpen", "shrink", "blur", "jpeg", "noise", "none"])
    if kind == "sharpen":
        altered = _sharpened(altered, rng.uniform(0.8, 2.5), rng.uniform(0.8, 2))
    elif kind == "shrink":
        small = degrade.rescale(altered, 1 / rng.uniform(1.3, 3.5), cv2.INTER_AREA)
        altered = np.asarray(cv2.resize(small, (size, size), interpolation=cv2.INTER_CUBIC), np.uint8)
    elif kind == "blur":
        altered = np.asarray(cv2.GaussianBlur(altered, (0, 0), rng.uniform(0.6, 2)), np.uint8)
    elif kind == "jpeg":
        altered = degrade.jpeg(altered, int(rng.uniform(25, 75)))
    elif kind == "noise":
        altered = degrade.noise(altered, rng.uniform(2, 10), rng)
    return altered


def _shifted(picture: Pixels, rng: Generator) -> Pixels:
    """A small random affine and elastic motion: the pasted face never sits quite right."""
    size = picture.shape[0]
    matrix = cv2.getRotationMatrix2D((size / 2, size / 2), float(rng.uniform(-3, 3)), float(rng.uniform(0.95, 1.05)))
    matrix[:, 2] += rng.uniform(-0.02, 0.02, 2) * size
    moved = cv2.warpAffine(picture, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return masks.moved(np.asarray(moved, np.uint8), masks.displacement(rng, size, 0.004))


def _tinted(picture: Pixels, rng: Generator, strength: float) -> Pixels:
    gain = 1 + rng.normal(0, strength / 200, 3)
    shift = rng.normal(0, strength / 2) + rng.normal(0, strength / 2, 3)
    curves = np.arange(256)[:, None, None] * gain + shift  # (256, 1, 3): one curve a channel
    return np.asarray(cv2.LUT(picture, np.clip(curves, 0, 255).astype(np.uint8)), np.uint8)


def _sharpened(picture: Pixels, amount: float, sigma: float) -> Pixels:
    blurred = cv2.GaussianBlur(picture, (0, 0), sigma)
    return np.asarray(cv2.addWeighted(picture, 1 + amount, blurred, -amount, 0), np.uint8)


def _recoloured(picture: Pixels, rng: Generator) -> Pixels:
    """A new hue and lightness in Lab, texture kept."""
    lab = cv2.cvtColor(picture, cv2.COLOR_RGB2LAB).astype(np.float32)
    lab[..., 0] = lab[..., 0] * rng.uniform(0.75, 1.2) + rng.uniform(-20, 20)
    angle, length = rng.uniform(0, 2 * np.pi), rng.uniform(6, 30)
    lab[..., 1:] += length * np.array([np.cos(angle), np.sin(angle)], np.float32)
    return np.asarray(cv2.cvtColor(np.clip(lab, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)


def _onto(donor: Portrait, shape: Points) -> Pixels:
    """The donor's canvas moved by the best affine fit of its landmarks to `shape`."""
    matrix, _ = cv2.estimateAffine2D(donor.shape, shape, method=cv2.LMEDS)
    size, border = donor.canvas.shape[0], cv2.BORDER_REFLECT_101
    moved = cv2.warpAffine(donor.canvas, matrix, (size, size), flags=cv2.INTER_CUBIC, borderMode=border)
    return np.asarray(moved, np.uint8)


def _colour_matched(source: Pixels, target: Pixels, mask: Mask) -> Pixels:
    """Mean and deviation of each Lab channel inside the mask taken over from the target (Reinhard et al. 2001)."""
    inside = mask > 0.5
    lab = [cv2.cvtColor(p, cv2.COLOR_RGB2LAB).astype(np.float32) for p in (source, target)]
    (mean_s, std_s), (mean_t, std_t) = ((p[inside].mean(0), p[inside].std(0) + 1) for p in lab)
    matched = (lab[0] - mean_s) / std_s * std_t + mean_t
    return np.asarray(cv2.cvtColor(np.clip(matched, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)
