"""Frames in, face boxes with five landmarks and a confidence out: the cascade of Zhang et al. (2016).

Three small networks, each looking harder at less: PNet slides a 12 px window over a pyramid, RNet (24 px) throws most
of it out, ONet (48 px) decides and places eyes, nose and mouth. It is here, and not a package, because the published
weights are 2 MB and the packages around them pin old numpy and torch.

`python -m scanner.detection.mtcnn PNET.pt RNET.pt ONET.pt OUT.safetensors` converts what facenet-pytorch 2.6.0 has.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from scanner.detection.nets import ONet, PNet, RNet
from scanner.errors import BadWeights

WEIGHTS = Path(__file__).parents[1] / "weights" / "mtcnn.safetensors"
WEIGHTS_SHA256 = "84cbd064d68b30425788bb608f54f5504c7116a00e22f5744147ee7235e1f261"

CELL_PX = 12  # PNet's window
STRIDE_PX = 2
FACTOR = 0.709  # between pyramid levels: halves the area
MAX_LEVEL_PIXELS = 600_000  # finest pyramid level: 0.2 s on one core
MAX_BATCH_PIXELS = 600_000  # level pixels through PNet at once: 25 MB of activations
CROPS_AT_ONCE = {"cpu": 64, "cuda": 256}  # through RNet and ONet; 256 of 48 px have 70 MB of activations, out of cache
MAX_CANDIDATES = 1_500  # windows considered per level, and per frame: bounds time and memory on noise
P_MIN, R_MIN, O_MIN = 0.6, 0.7, 0.9  # the paper's authors use 0.7 last; portraits reach 0.97, the false ones seen 0.89
SURE = 0.999  # 95 % of upright portraits reach 0.998, the median of faces on their head is 0.96
TILTED = 0.1  # rad
TURN_ODDS = 7  # how much surer another direction must be: none of 169 faces tilted up to 45 degrees is turned wrongly

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Found:
    """Faces of one frame, best first: boxes (N, 4) x0 y0 x1 y1 px, confidence (N,), landmarks (N, 5, 2) px."""

    boxes: Floats
    confidence: Floats
    landmarks: Floats


class Mtcnn:
    """The cascade, loaded and ready; `detect` is safe to call from several threads."""

    def __init__(self, weights: Path = WEIGHTS, *, device: str = "cpu") -> None:
        """Load the shipped weights onto `device`.

        Raises BadWeights when the file is missing or altered.
        """
        self.device = torch.device(device)
        state = load_weights(weights)
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        for name, net in (("pnet", self.pnet), ("rnet", self.rnet), ("onet", self.onet)):
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
            net.eval().requires_grad_(requires_grad=False)
            # as the pixels lie; else oneDNN turns the weights at every call: 12 to 18 % of the nets' time
            net.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def detect(self, frames: Sequence[Pixels], *, min_face_px: float = 40.0) -> list[Found]:
        """Faces in each of `frames`, (H, W, 3) uint8 RGB and all of one size.

        The finest pyramid level maps `min_face_px` to PNet's 12 px, but has at most 0.6 Mpx: from about 7 Mpx on
        the smallest face grows with the picture (50 Mpx: 110 px).
        """
        if not frames:
            return []
        height, width = frames[0].shape[:2]
        scale = min(CELL_PX / min_face_px, (MAX_LEVEL_PIXELS / (height * width)) ** 0.5)
        halved = [halvings(frame) for frame in frames]
        return self._decide(halved, self._refine(halved, self._propose(halved, scale)))

    def _propose(self, halved: list[list[Pixels]], scale: float) -> list[Floats]:
        """PNet over the pyramid: square candidate boxes (N, 4) per frame."""
        height, width = halved[0][0].shape[:2]
        found: list[list[Floats]] = [[np.zeros((0, 9), np.float32)] for _ in halved]
        while min(height, width) * scale >= CELL_PX:
            step = max(1, int(MAX_BATCH_PIXELS / (height * width * scale**2)))
            for start in range(0, len(halved), step):
                pixels, zooms_x, zooms_y = zip(
                    *(level(images, scale) for images in halved[start : start + step]), strict=True
                )
                p, offsets = self.pnet(self._tensor(np.stack(pixels)))
                for i, (cells, values) in enumerate(passing(p, offsets, P_MIN)):
                    boxes = windows(cells, values, (zooms_x[i], zooms_y[i]))
                    found[start + i].append(boxes[keep_best(boxes, boxes[:, 4], 0.5)])
            scale *= FACTOR
        joined = [np.concatenate(levels) for levels in found]
        return [settled(boxes[:, :4], boxes[:, 4], boxes[:, 5:]) for boxes in joined]

    def _refine(self, halved: list[list[Pixels]], proposals: list[Floats]) -> list[Floats]:
        counts = [len(boxes) for boxes in proposals]
        crops = np.concatenate([cut(images, boxes, 24) for images, boxes in zip(halved, proposals, strict=True)])
        outputs = self._batched(self.rnet, crops)
        p, offsets = (split(t, counts) for t in outputs)
        good = [one >= R_MIN for one in p]
        return [
            settled(boxes[g], p[i][g], offsets[i][g]) for i, (boxes, g) in enumerate(zip(proposals, good, strict=True))
        ]

    def _decide(self, halved: list[list[Pixels]], proposals: list[Floats]) -> list[Found]:
        counts = [len(boxes) for boxes in proposals]
        crops = np.concatenate([cut(images, boxes, 48) for images, boxes in zip(halved, proposals, strict=True)])
        p, offsets, points = (split(t, counts) for t in self._batched(self.onet, crops))
        found = []
        for i, all_boxes in enumerate(proposals):
            good = p[i] >= O_MIN
            boxes, size = all_boxes[good], sides(all_boxes[good])
            landmarks = boxes[:, None, :2] + points[i][good].reshape(-1, 2, 5).transpose(0, 2, 1) * size[:, None]
            boxes = boxes + offsets[i][good] * np.tile(size, 2)
            keep = keep_best(boxes, p[i][good], 0.7, of_smaller=True)
            found.append(self._straightened(halved[i], Found(boxes[keep], p[i][good][keep], landmarks[keep])))
        return found

    def _straightened(self, images: list[Pixels], found: Found) -> Found:
        """ONet once more on tilted faces turned upright; on doubtful ones in all four directions.

        Measured on 67 portraits: tilted by 45 degrees, the landmarks' error falls from 0.10 to 0.024 eye distances; of
        24 faces found upside down 23 are told from upright ones, before 0.
        """
        tilts = tilts_of(found.landmarks)
        quarters = [
            range(4) if p < SURE else range(int(abs(t) > TILTED)) for p, t in zip(found.confidence, tilts, strict=True)
        ]
        rows = np.array([i for i, turns in enumerate(quarters) for _ in turns], np.intp)
        if not len(rows):
            return found
        turns = [tilts[i] + q * np.pi / 2 for i, some in enumerate(quarters) for q in some]
        tilts = np.array(turns, np.float32)
        squares = squared(found.boxes[rows])
        p, _, points = self._batched(self.onet, cut(images, squares, 48, tilts))
        centre, side = (squares[:, :2] + squares[:, 2:]) / 2, sides(squares)[:, :1]
        within = (points.reshape(-1, 2, 5).transpose(0, 2, 1) - 0.5) * side[:, None]
        landmarks = centre[:, None] + within @ rotations(tilts).transpose(0, 2, 1)
        for i in np.unique(rows):
            own = np.flatnonzero(rows == i)
            best, rival = own[0], own[p[own].argmax()]
            if 1 - p[rival] < (1 - p[best]) / TURN_ODDS:
                best = rival
            if p[best] > found.confidence[i] - 0.01:
                found.landmarks[i], found.confidence[i] = landmarks[best], p[best]
        return found

    def _batched(self, net: nn.Module, crops: Pixels) -> tuple[Floats, ...]:
        step = CROPS_AT_ONCE[self.device.type]
        parts = [net(self._tensor(crops[i : i + step])) for i in range(0, max(1, len(crops)), step)]
        return tuple(torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))

    def _tensor(self, pixels: Pixels) -> Tensor:
        x = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2)  # stays channels_last
        return (x.float() - 127.5) / 128.0


def load_weights(path: Path) -> dict[str, Tensor]:
    """The three state dicts in one, names prefixed `pnet.`, `rnet.`, `onet.`; raises BadWeights."""
    try:
        data = path.read_bytes()
    except OSError as error:
        msg = f"cannot read the face detector's weights {path}: {error.strerror}; install laescan again"
        raise BadWeights(msg) from error
    if hashlib.sha256(data).hexdigest() != WEIGHTS_SHA256:
        msg = f"the face detector's weights {path} are not the shipped ones; install laescan again"
        raise BadWeights(msg)
    return safetensors.torch.load(data)


def passing(p: Tensor, offsets: Tensor, threshold: float) -> list[tuple[Ints, Floats]]:
    """PNet's answers (B, h, w), (B, 4, h, w) -> per frame the cells that pass (N, 2), by rows, and p, offsets (N, 5).

    Only these leave the device: of the 22,201 windows of a 1 Mpx portrait's finest level 23 pass, 51 at most.
    """
    frame, rows, columns = (p >= threshold).nonzero(as_tuple=True)
    values = torch.cat([p[frame, rows, columns][:, None], offsets[frame, :, rows, columns]], 1).cpu().numpy()
    cells = torch.stack([rows, columns], 1).cpu().numpy()
    counts = torch.bincount(frame, minlength=len(p)).tolist()
    return list(zip(np.split(cells, np.cumsum(counts)[:-1]), split(values, counts), strict=True))


def windows(cells: Ints, values: Floats, zoom: tuple[float, float]) -> Floats:
    """The cells of one frame that pass at one level as rows x0 y0 x1 y1 p offsets(4), frame px, best first."""
    order = np.argsort(-values[:, 0], kind="stable")[:MAX_CANDIDATES]
    corner = cells[order, ::-1] * float(STRIDE_PX)
    boxes = np.concatenate([corner * zoom, (corner + CELL_PX) * zoom], 1)
    return np.concatenate([boxes, values[order]], 1).astype(np.float32)


def keep_best(boxes: Floats, p: Floats, threshold: float, *, of_smaller: bool = False) -> Ints:
    """Non-maximum suppression: indices to keep, best first, of the MAX_CANDIDATES best.

    Overlap is intersection over union, or over the smaller box (`of_smaller`), which also drops a box inside another.
    """
    order = np.argsort(-p, kind="stable")[:MAX_CANDIDATES]
    x0, y0, x1, y1 = boxes[order, :4].T
    area = (x1 - x0) * (y1 - y0)
    shared = overlap(x0, x1) * overlap(y0, y1)  # axis by axis: 4 times as fast as both in one array
    whole = np.minimum(area[:, None], area) if of_smaller else area[:, None] + area - shared
    doubles = shared > threshold * whole
    alive = np.ones(len(order), np.bool_)
    for i in range(len(order)):
        if alive[i]:
            alive[i + 1 :] &= ~doubles[i, i + 1 :]
    return order[alive]


def overlap(low: Floats, high: Floats) -> Floats:
    """How much of a line each pair (N, N) of stretches `low` to `high` shares."""
    shared = np.minimum(high[:, None], high)
    shared -= np.maximum(low[:, None], low)
    return np.maximum(shared, 0, out=shared)


def settled(boxes: Floats, p: Floats, offsets: Floats) -> Floats:
    """Doubles dropped, offsets (fractions of the side) applied, grown to squares around the centres."""
    keep = keep_best(boxes, p, 0.7)
    boxes = boxes[keep] + offsets[keep] * np.tile(sides(boxes[keep]), 2)
    return squared(boxes)


def squared(boxes: Floats) -> Floats:
    """Boxes grown to squares around their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, sides(boxes).max(1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], 1)


def sides(boxes: Floats) -> Floats:
    """Width and height (N, 2)."""
    return boxes[:, 2:4] - boxes[:, :2]


def halvings(frame: Pixels) -> list[Pixels]:
    """The frame, then halved again and again: what levels and crops are made of, so that none costs more than itself.

    A last odd row or column is dropped, which keeps the scale of the k-th exactly 1 / 2**k.
    """
    images = [frame]
    while min(images[-1].shape[:2]) >= 2 * CELL_PX:
        h, w = (n // 2 for n in images[-1].shape[:2])
        images.append(
            np.asarray(cv2.resize(images[-1][: 2 * h, : 2 * w], (w, h), interpolation=cv2.INTER_AREA), np.uint8)
        )
    return images


def level(images: list[Pixels], scale: float) -> tuple[Pixels, float, float]:
    """One pyramid level at about `scale`, and its exact zoom to frame pixels (x, y)."""
    k = min(max(int(-np.log2(scale)), 0), len(images) - 1)
    source = images[k]
    h, w = (max(CELL_PX, round(n * scale * 2**k)) for n in source.shape[:2])
    how = cv2.INTER_AREA if w < source.shape[1] else cv2.INTER_LINEAR
    pixels = np.asarray(cv2.resize(source, (w, h), interpolation=how), np.uint8)
    return pixels, source.shape[1] / w * 2**k, source.shape[0] / h * 2**k


def cut(images: list[Pixels], boxes: Floats, size: int, tilts: Floats | None = None) -> Pixels:
    """Crops (N, size, size, 3) of square `boxes` in frame px, turned around their centres by `tilts` (rad, clockwise).

    Outside of the frame they are black.
    """
    crops = np.empty((len(boxes), size, size, 3), np.uint8)
    centres, axes = (
        (boxes[:, :2] + boxes[:, 2:]) / 2,
        rotations(np.zeros(len(boxes), np.float32) if tilts is None else tilts),
    )
    for crop, centre, axis, side in zip(crops, centres, axes, sides(boxes)[:, 0], strict=True):
        step = max(float(side), 1e-3) / size  # frame pixels per crop pixel
        k = min(max(int(np.log2(step)), 0), len(images) - 1)
        turn = axis * (step / 2**k)
        # warpAffine counts from pixel centres: crop pixel i lies at centre + turn @ (i + 0.5 - size / 2) - 0.5
        shift = centre / 2**k - 0.5 + turn @ np.full(2, 0.5 - size / 2)
        matrix = np.concatenate([turn, shift[:, None]], 1)
        cv2.warpAffine(images[k], matrix, (size, size), dst=crop, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return crops


def rotations(tilts: Floats) -> Floats:
    """Matrices (N, 2, 2) that turn by `tilts` (rad), clockwise as seen in a picture."""
    c, s = np.cos(tilts), np.sin(tilts)
    return np.stack([np.stack([c, -s], -1), np.stack([s, c], -1)], -2)


def tilts_of(landmarks: Floats) -> Floats:
    """How far heads (N, 5, 2) are tilted (rad, clockwise): the direction from the eyes to the mouth corners."""
    down = landmarks[:, 3:].mean(1) - landmarks[:, :2].mean(1)
    return np.asarray(np.arctan2(-down[:, 0], down[:, 1]), np.float32)


def split(values: Floats, counts: list[int]) -> list[Floats]:
    """Rows back to the frames they came from."""
    return np.split(values, np.cumsum(counts)[:-1])


def convert(pnet: Path, rnet: Path, onet: Path, out: Path) -> None:
    """Write facenet-pytorch's three checkpoints as one safetensors file with this module's names.

    Its first dense layers expect the feature map in W, H, C order; they are reordered to C, H, W here.
    """
    state: dict[str, Tensor] = {}
    for name, path, net in (("pnet", pnet, PNet()), ("rnet", rnet, RNet()), ("onet", onet, ONet())):
        given = list(torch.load(path, weights_only=True).items())
        wanted = list(net.state_dict())
        for key, (_, value) in zip(wanted, given, strict=True):
            first_dense = key == {"rnet": "features.9.weight", "onet": "features.12.weight"}.get(name)
            cube = value.reshape(len(value), 3, 3, -1).permute(0, 3, 2, 1) if first_dense else value
            state[f"{name}.{key}"] = cube.reshape(value.shape).contiguous()
    safetensors.torch.save_file(state, out)


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:5]))
