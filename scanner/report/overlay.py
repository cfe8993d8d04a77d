"""A frame and its verdict in, the frame with the evidence drawn on it out: nothing glows unless the verdict says so.

How much is drawn follows `wording.label_of`, the lower of what the face and the whole verdict say:
manipulated = the attention map in colour over a greyed picture, with a contour, and a solid box;
inconclusive = grey hatching and a dashed box; authentic = a thin box and nothing else. A region that looks inpainted
has blue corners, which no face has, and nothing inside is painted. Words and numbers stand beside every colour.
The map is scaled by its real strength (`AttentionMap.peak`), so that a faint map stays faint.
"""

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from scanner import wording
from scanner.contract import AttentionMap, FaceEvidence, Label, Region, Verdict
from scanner.report import palette

Pixels = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]
Colour = tuple[int, int, int]

LONG_SIDE_PX: Final = (640, 1600)
"""Pictures are drawn on within these bounds: letters stay readable on small ones, files stay small for large ones."""
STRONG = 2.0
"""Contribution of one cell that is drawn as full strength: training asks for a mean of 1 over a forged face."""
CONTOUR = 0.5
"""Strength at which the contour runs: evidence is readable without any sense of colour."""
HATCH_LIGHT, HATCH_DARK = 236.0, 40.0
INK: Final = (16, 17, 22)
PAPER: Final = (255, 255, 255)
CHIP: Final = {
    Label.MANIPULATED: (255, 214, 102),
    Label.INCONCLUSIVE: (201, 203, 214),
    Label.AUTHENTIC: (255, 255, 255),
}
REGION: Final = (120, 196, 255)
"""Blue beside the yellow of faces: told apart with any colour vision (Okabe and Ito, "Color Universal Design")."""
REGION_LEGEND: Final = "looks inpainted"
GLINT: Final = (255, 255, 255, 60)
CHIP_WORDS: Final = {
    Label.MANIPULATED: "manipulated",
    Label.INCONCLUSIVE: "inconclusive",
    Label.AUTHENTIC: "no sign",
}


def draw_overlay(frame: Pixels, verdict: Verdict, frame_index: int) -> Pixels:
    """The frame (H, W, 3) uint8 RGB with maps, boxes and a legend, scaled to a long side of 640..1600 px.

    `frame_index` is the position in `verdict.frames`.
    """
    picture = fit(frame)
    scale = picture.width / frame.shape[1]
    faces = [face for face in verdict.faces if face.frame == frame_index]
    regions = verdict.regions if frame_index == 0 else ()
    labels = [wording.label_of(face.score, verdict) for face in faces]
    picture, legend = _draw_maps(picture, faces, labels, scale)
    draw = ImageDraw.Draw(picture, "RGBA")
    for face, label in zip(faces, labels, strict=True):
        _draw_box(draw, face, label, scale)
    for region in regions:
        _draw_corners(draw, _scaled(region.box, scale))
    taken: list[Box] = []
    boxes = [_scaled(box, scale) for box in [f.box for f in faces] + [r.box for r in regions]]
    letter_px = _letter_px(picture.size, boxes)
    for face, label in zip(faces, labels, strict=True):
        words = "not judged" if face.score is None else f"{CHIP_WORDS[label]} {wording.number(face.score)}"
        taken.append(_draw_chip(draw, _scaled(face.box, scale), (words, CHIP[label]), taken, letter_px))
    for region in regions:
        words = wording.region_words(region)
        taken.append(_draw_chip(draw, _scaled(region.box, scale), (words, REGION), taken, letter_px))
    if legend is not None or regions:
        _draw_legend(picture, legend, taken + boxes, 0.85 * letter_px, has_regions=bool(regions))
    return np.asarray(picture, np.uint8)


def draw_crop(frame: Pixels, face: FaceEvidence, verdict: Verdict, size: int = 240) -> tuple[Pixels, Pixels]:
    """One face as the model saw it, (size, size, 3) each: as it is, and with its map."""
    label = wording.label_of(face.score, verdict)
    if face.attention is None:
        x0, y0, x1, y1 = face.box
        to_frame = (x1 - x0, 0.0, x0, 0.0, y1 - y0, y0)
    else:
        to_frame = face.attention.crop_to_frame
    a, b, c, d, e, f = to_frame
    plain = Image.fromarray(frame).transform(
        (size, size), Image.Transform.AFFINE, (a / size, b / size, c, d / size, e / size, f), Image.Resampling.BICUBIC
    )
    if face.attention is None:
        return np.asarray(plain), np.asarray(plain)
    strength = _strength(face.attention).resize((size, size), Image.Resampling.BICUBIC)
    return np.asarray(plain), np.asarray(_paint(plain, strength, label))


def draw_region(frame: Pixels, region: Region, size: int = 240) -> Pixels:
    """One region with as much around it as it is large, on a long side of `size` px, its corners drawn."""
    height, width = frame.shape[:2]
    x0, y0, x1, y1 = region.box
    aside, above = (x1 - x0) / 2, (y1 - y0) / 2
    left, top = max(int(x0 - aside), 0), max(int(y0 - above), 0)
    part = frame[top : min(int(y1 + above), height), left : min(int(x1 + aside), width)]
    scale = size / max(part.shape[:2])
    shape = max(1, round(scale * part.shape[1])), max(1, round(scale * part.shape[0]))
    picture = Image.fromarray(np.ascontiguousarray(part)).resize(shape, Image.Resampling.BICUBIC)
    _draw_corners(ImageDraw.Draw(picture, "RGBA"), _scaled((x0 - left, y0 - top, x1 - left, y1 - top), scale))
    return np.asarray(picture)


def fit(frame: Pixels) -> Image.Image:
    """The frame as a picture whose long side is within `LONG_SIDE_PX`."""
    image = Image.fromarray(np.ascontiguousarray(frame))
    least, most = LONG_SIDE_PX
    side = max(image.size)
    scale = least / side if side < least else min(1.0, most / side)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image if size == image.size else image.resize(size, Image.Resampling.LANCZOS)


def _draw_maps(
    picture: Image.Image, faces: list[FaceEvidence], labels: list[Label], scale: float
) -> tuple[Image.Image, Label | None]:
    """The picture with all maps, and which legend it needs: the strongest label that was drawn."""
    layers: dict[Label, Image.Image] = {}
    for face, label in zip(faces, labels, strict=True):
        if label is Label.AUTHENTIC or face.attention is None or face.attention.peak <= 0:
            continue
        layer = layers.setdefault(label, Image.new("L", picture.size))
        _lay(layer, face.attention, scale)
    for label in (Label.INCONCLUSIVE, Label.MANIPULATED):
        if label in layers:
            picture = _paint(picture, layers[label], label)
    return picture, max(layers, key=[Label.INCONCLUSIVE, Label.MANIPULATED].index, default=None)


def _strength(attention: AttentionMap) -> Image.Image:
    """The map as grey 0..255 = none..strong, size x size."""
    grid = np.frombuffer(attention.grid, np.uint8).reshape(attention.size, attention.size)
    strength = np.minimum(grid * (attention.peak / STRONG), 255.0)
    return Image.fromarray(np.rint(strength).astype(np.uint8))


def _lay(layer: Image.Image, attention: AttentionMap, scale: float) -> None:
    """Warp one map onto the layer; where two crops overlap the stronger wins."""
    to_frame = np.array(attention.crop_to_frame).reshape(2, 3) * scale
    corners = to_frame @ np.array([[0, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]])
    x0, y0 = np.maximum(np.floor(corners.min(axis=1)), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(corners.max(axis=1)).astype(int), layer.size)
    if x1 <= x0 or y1 <= y0 or abs(np.linalg.det(to_frame[:, :2])) < 1.0:
        return
    size = 16 * attention.size  # smooth first, warp after: bilinear over 16 cells shows the cells
    smooth = _strength(attention).resize((size, size), Image.Resampling.BICUBIC)
    inverse = np.linalg.inv(np.vstack([to_frame, [0, 0, 1]])) * [[size], [size], [1]]
    shifted = inverse @ np.array([[1, 0, x0], [0, 1, y0], [0, 0, 1]])
    patch = smooth.transform(
        (int(x1 - x0), int(y1 - y0)),
        Image.Transform.AFFINE,
        tuple(float(v) for v in shifted[:2].ravel()),
        Image.Resampling.BILINEAR,
    )
    region = np.asarray(layer.crop((int(x0), int(y0), int(x1), int(y1))))
    layer.paste(Image.fromarray(np.maximum(region, np.asarray(patch))), (int(x0), int(y0)))


def _paint(picture: Image.Image, strength: Image.Image, label: Label) -> Image.Image:
    """The picture with one strength layer (L, same size) in the style of the label."""
    if label is Label.AUTHENTIC:
        return picture
    amount = np.asarray(strength, np.float32)[..., None] / 255
    base = np.asarray(picture, np.float32)
    if label is Label.INCONCLUSIVE:
        height, width = amount.shape[:2]
        period = max(6, round(max(width, height) / 90))
        rows, columns = np.ogrid[:height, :width]
        phase = ((rows + columns) % period)[..., None] / period
        stripes = np.where(phase < 0.3, np.float32(HATCH_LIGHT), np.float32(HATCH_DARK))
        alpha = 0.85 * np.minimum(2 * amount, 1.0) * (phase < 0.5)  # light and dark: seen on any skin
        return Image.fromarray(np.rint(base + alpha * (stripes - base)).astype(np.uint8))
    grey = base @ np.array([0.299, 0.587, 0.114], np.float32)
    base += 0.85 * (0.9 * grey[..., None] - base)  # grey, so that skin is not taken for heat
    colour = palette.ramp()[np.asarray(strength)].astype(np.float32)
    alpha = 0.75 * np.minimum(amount / 0.35, 1.0) ** 1.5
    painted = Image.fromarray(np.rint(base + alpha * (colour - base)).astype(np.uint8))
    return _draw_contour(painted, strength)


def _draw_contour(picture: Image.Image, strength: Image.Image) -> Image.Image:
    width = 1 + 2 * max(1, max(picture.size) // 800)
    inside = strength.point([255 * (v >= 255 * CONTOUR) for v in range(256)])
    edge = np.asarray(inside.filter(ImageFilter.MaxFilter(width)), np.int16) - np.asarray(inside)
    picture.paste(PAPER, mask=Image.fromarray((edge * 0.9).astype(np.uint8)))
    return picture


def _stroke(draw: ImageDraw.ImageDraw) -> int:
    return max(2, int(max(draw.im.size)) // 400)


def _draw_box(draw: ImageDraw.ImageDraw, face: FaceEvidence, label: Label, scale: float) -> None:
    x0, y0, x1, y1 = _scaled(face.box, scale)
    stroke = _stroke(draw)
    thin = label is Label.AUTHENTIC or face.score is None
    width = max(1, stroke // 2) if thin else stroke
    dash = 0 if label is not Label.INCONCLUSIVE else 5 * stroke
    corners = [(x0, y0), (x1, y0), (x1, y1), (x0, y1), (x0, y0)]
    for start, end in itertools.pairwise(corners):
        for a, b in _dashes(start, end, dash):
            draw.line([a, b], fill=(*INK, 150), width=width + 2)
            draw.line([a, b], fill=(*PAPER, 170 if thin else 255), width=width)


def _draw_corners(draw: ImageDraw.ImageDraw, box: Box) -> None:
    """The four corners of a box, with a dark rim that is seen on any picture."""
    x0, y0, x1, y1 = box
    width = _stroke(draw) + 1
    side = min(x1 - x0, y1 - y0)
    arm = min(max(3.0 * width, side / 4), 0.35 * side)
    lines = [
        [(x + dx * arm, y), (x, y), (x, y + dy * arm)] for x, dx in ((x0, 1), (x1, -1)) for y, dy in ((y0, 1), (y1, -1))
    ]
    for colour, thick in (((*INK, 190), width + 4), ((*REGION, 255), width)):
        for line in lines:
            draw.line(line, fill=colour, width=thick, joint="curve")


def _dashes(
    start: tuple[float, float], end: tuple[float, float], dash: float
) -> Iterator[tuple[tuple[float, float], tuple[float, float]]]:
    """The line in strokes of length `dash` with gaps as long; whole where dash is 0."""
    if not dash:
        yield start, end
        return
    (x0, y0), (x1, y1) = start, end
    length = max(abs(x1 - x0), abs(y1 - y0), 1.0)
    at = 0.0
    while at < length:
        s, t = at / length, min(at + dash, length) / length
        yield (x0 + s * (x1 - x0), y0 + s * (y1 - y0)), (x0 + t * (x1 - x0), y0 + t * (y1 - y0))
        at += 2 * dash


def _draw_chip(
    draw: ImageDraw.ImageDraw, about: Box, what: tuple[str, Colour], taken: list[Box], letter_px: float
) -> Box:
    """The label in words with its number, above the box that it is about where there is room and no other chip."""
    words, fill = what
    font = ImageFont.load_default(letter_px)
    left, top, right, bottom = draw.textbbox((0, 0), words, font=font)
    pad = (bottom - top) * 0.45
    width, height = right - left + 2 * pad, bottom - top + 2 * pad
    x0, y0, _, y1 = about
    x = min(max(x0, 0), max(draw.im.size[0] - width, 0))
    spots = [y0 - height - 3, y1 + 3, y0 + 3]
    room = [y for y in spots if 0 <= y <= draw.im.size[1] - height]
    free = [y for y in room if not any(_overlap((x, y, x + width, y + height), other) for other in taken)]
    y = (free or room or [0.0])[0]
    box = (x, y, x + width, y + height)
    draw.rounded_rectangle(box, radius=height / 4, fill=(*fill, 240), outline=(*INK, 200))
    draw.text((x + pad - left, y + pad - top), words, font=font, fill=INK)
    return box


def _scaled(box: Box, scale: float) -> Box:
    return box[0] * scale, box[1] * scale, box[2] * scale, box[3] * scale


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _letter_px(size: tuple[int, int], boxes: list[Box]) -> float:
    """Height of letters: of a panorama the height counts, of a tall screenshot the width, in a crowd the least box.

    A page shows the picture as wide as it can: 1/36 of it is 16 px on a desktop and 8.5 px on a phone, 1/50 is 6 px.
    """
    side = min(max(size), 1.5 * min(size))
    narrowest = min((x1 - x0 for x0, _, x1, _ in boxes), default=side)
    return max(12.0, side / 50, min(side / 36, narrowest / 8))


def _draw_legend(
    picture: Image.Image, label: Label | None, taken: list[Box], letter: float, *, has_regions: bool
) -> None:
    """What the marks mean, in the corner that hides least: the style of the maps from none to strong, the corners."""
    font = ImageFont.load_default(letter)
    draw = ImageDraw.Draw(picture, "RGBA")
    row, pad = 1.35 * letter, 0.7 * letter
    title = "evidence of manipulation" + ("" if label is Label.MANIPULATED else " (inconclusive)")
    titles = ([title] if label else []) + ([REGION_LEGEND] if has_regions else [])
    width = max([*(draw.textlength(words, font=font) for words in titles), 16 * letter if label else 0])
    width += 2 * letter if has_regions else 0
    height = (3 * row if label else 0) + (1.1 * row if has_regions else 0) + pad
    x, y = _free_corner(picture.size, (width + 2 * pad, height), pad, taken)
    draw.rounded_rectangle((x, y, x + width + 2 * pad, y + height), radius=pad, fill=(*INK, 205), outline=GLINT)
    x, y = x + pad, y + pad * 0.6
    if has_regions:
        _draw_corners(draw, (x + 2, y + 0.15 * row, x + 1.2 * letter, y + 0.9 * row))
        draw.text((x + 2 * letter, y), REGION_LEGEND, font=font, fill=PAPER)
        y += 1.1 * row
    if label is None:
        return
    draw.text((x, y), title, font=font, fill=PAPER)
    bar = Image.fromarray(np.arange(256, dtype=np.uint8)[None]).resize((round(width), round(row * 0.6)))
    picture.paste(_paint(Image.new("RGB", bar.size, (70, 70, 76)), bar, label), (round(x), round(y + row * 1.05)))
    draw.text((x, y + row * 1.8), "none", font=font, fill=PAPER)
    draw.text((x + width - draw.textlength("strong", font=font), y + row * 1.8), "strong", font=font, fill=PAPER)


def _free_corner(
    size: tuple[int, int], panel: tuple[float, float], margin: float, taken: list[Box]
) -> tuple[float, float]:
    """Top left of the panel in the corner with the least overlap; bottom left when all are free."""
    right, bottom = size[0] - panel[0] - margin, size[1] - panel[1] - margin
    corners = [(margin, bottom), (right, bottom), (margin, margin), (right, margin)]

    def hidden(corner: tuple[float, float]) -> float:
        x, y = corner
        widths = ((min(x + panel[0], b[2]) - max(x, b[0]), min(y + panel[1], b[3]) - max(y, b[1])) for b in taken)
        return sum(max(w, 0.0) * max(h, 0.0) for w, h in widths)

    return min(corners, key=hidden)
