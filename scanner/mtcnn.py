"""Frames in, face boxes with five landmarks and a confidence out: the cascade of Zhang et al. (2016).

Three small networks, each looking harder at less: PNet slides a 12 px window over a pyramid, RNet (24 px) throws most of it
out, ONet (48 px) decides and places eyes, nose and mouth. It is here, and not a package, because the published weights are
1.9 MB and the packages around them pin old numpy and torch.

`python -m scanner.mtcnn PNET.pt RNET.pt ONET.pt OUT.safetensors` converts the weights of facenet-pytorch 2.6.0.
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

from scanner.errors import BadWeights

WEIGHTS = Path(__file__).parent / "weights" / "mtcnn.safetensors"
WEIGHTS_SHA256 = "84cbd064d68b30425788bb608f54f5504c7116a00e22f5744147ee7235e1f261"

CELL_PX = 12  # PNet's window
STRIDE_PX = 2
FACTOR = 0.709  # between pyramid levels: halves the area
MAX_LEVEL_PIXELS = 600_000  # finest pyramid level: 0.2 s on one core
MAX_BATCH_PIXELS = 1_200_000  # level pixels through PNet at once: 50 MB of activations
MAX_CANDIDATES = 1_000  # windows per level, best first

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.intp]


class PNet(nn.Module):
    """(B, 3, h, w) -> face probability (B, h', w') and box offsets (B, 4, h', w'), one window per 2 px."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 10, 3),
            nn.PReLU(10),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(10, 16, 3),
            nn.PReLU(16),
            nn.Conv2d(16, 32, 3),
            nn.PReLU(32),
        )
        self.face = nn.Conv2d(32, 2, 1)
        self.box = nn.Conv2d(32, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f)


class RNet(nn.Module):
    """(B, 3, 24, 24) -> face probability (B,) and box offsets (B, 4)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 28, 3),
            nn.PReLU(28),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(28, 48, 3),
            nn.PReLU(48),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(48, 64, 2),
            nn.PReLU(64),
            nn.Flatten(),
            nn.Linear(576, 128),
            nn.PReLU(128),
        )
        self.face = nn.Linear(128, 2)
        self.box = nn.Linear(128, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f)


class ONet(nn.Module):
    """(B, 3, 48, 48) -> face probability (B,), box offsets (B, 4), landmarks (B, 10) as x1..x5, y1..y5 of the box."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 32, 3),
            nn.PReLU(32),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(32, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(64, 64, 3),
            nn.PReLU(64),
            nn.MaxPool2d(2, 2, ceil_mode=True),
            nn.Conv2d(64, 128, 2),
            nn.PReLU(128),
            nn.Flatten(),
            nn.Linear(1152, 256),
            nn.PReLU(256),
        )
        self.face = nn.Linear(256, 2)
        self.box = nn.Linear(256, 4)
        self.landmarks = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        f = self.features(x)
        return self.face(f).softmax(1)[:, 1], self.box(f), self.landmarks(f)


@dataclass(frozen=True)
class Found:
    """Faces of one frame, best first: boxes (N, 4) x0 y0 x1 y1 px, confidence (N,), landmarks (N, 5, 2) px."""

    boxes: Floats
    confidence: Floats
    landmarks: Floats


@dataclass(frozen=True)
class Mips:
    """One frame at falling sizes, so that a crop costs the same whatever its size; `scale` is that of the first."""

    images: list[Pixels]
    width: int  # of the frame, px
    height: int
    scale: float


class Mtcnn:
    """The cascade, loaded and ready; `detect` is safe to call from several threads."""

    def __init__(self, weights: Path = WEIGHTS, *, device: str = "cpu", thresholds: Sequence[float] = (0.6, 0.7, 0.7)):
        """Load the shipped weights onto `device`.

        Raises BadWeights when the file is missing or altered.
        """
        self.device = torch.device(device)
        self.thresholds = tuple(thresholds)
        state = load_weights(weights)
        self.pnet, self.rnet, self.onet = PNet(), RNet(), ONet()
        for name, net in (("pnet", self.pnet), ("rnet", self.rnet), ("onet", self.onet)):
            net.load_state_dict({k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")})
            net.eval().requires_grad_(requires_grad=False).to(self.device)

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
        proposals = self._propose(frames, scale)
        mips = [mipmaps(frame, 4 * scale) for frame in frames]
        return self._decide(mips, self._refine(mips, proposals))

    def _propose(self, frames: Sequence[Pixels], scale: float) -> list[Floats]:
        """PNet over the pyramid: square candidate boxes (N, 4) per frame."""
        height, width = frames[0].shape[:2]
        found: list[list[Floats]] = [[] for _ in frames]
        while min(height, width) * scale >= CELL_PX:
            h, w = round(height * scale), round(width * scale)
            step = max(1, MAX_BATCH_PIXELS // (h * w))
            for start in range(0, len(frames), step):
                level = np.stack([resize(frame, w, h) for frame in frames[start : start + step]])
                p, offsets = (t.cpu().numpy() for t in self.pnet(self._tensor(level)))
                for i in range(len(level)):
                    boxes = windows(p[i], offsets[i], self.thresholds[0], (width / w, height / h))
                    found[start + i].append(boxes[keep_best(boxes[:, :4], boxes[:, 4], 0.5)])
            scale *= FACTOR
        joined = [np.concatenate(levels) if levels else np.zeros((0, 9), np.float32) for levels in found]
        return [self._settle(boxes[:, :4], boxes[:, 4], boxes[:, 5:])[0] for boxes in joined]

    def _refine(self, mips: list[Mips], proposals: list[Floats]) -> list[Floats]:
        counts = [len(boxes) for boxes in proposals]
        crops = np.concatenate([cut(m, boxes, 24) for m, boxes in zip(mips, proposals, strict=True)])
        outputs = self._batched(self.rnet, crops)
        p, offsets = (split(t, counts) for t in outputs)
        settled = []
        for i, boxes in enumerate(proposals):
            good = p[i] >= self.thresholds[1]
            settled.append(self._settle(boxes[good], p[i][good], offsets[i][good])[0])
        return settled

    def _decide(self, mips: list[Mips], proposals: list[Floats]) -> list[Found]:
        counts = [len(boxes) for boxes in proposals]
        crops = np.concatenate([cut(m, boxes, 48) for m, boxes in zip(mips, proposals, strict=True)])
        p, offsets, points = (split(t, counts) for t in self._batched(self.onet, crops))
        found = []
        for i, all_boxes in enumerate(proposals):
            good = p[i] >= self.thresholds[2]
            boxes, size = all_boxes[good], sides(all_boxes[good])
            landmarks = boxes[:, None, :2] + points[i][good].reshape(-1, 2, 5).transpose(0, 2, 1) * size[:, None]
            boxes = boxes + offsets[i][good] * np.tile(size, 2)
            keep = keep_best(boxes, p[i][good], 0.7, of_smaller=True)
            found.append(Found(boxes[keep], p[i][good][keep], landmarks[keep]))
        return found

    @staticmethod
    def _settle(boxes: Floats, p: Floats, offsets: Floats) -> tuple[Floats, Floats]:
        """Drop doubles, apply the offsets, make square."""
        keep = keep_best(boxes, p, 0.7)
        boxes = boxes[keep] + offsets[keep] * np.tile(sides(boxes[keep]), 2)
        return squared(boxes), p[keep]

    def _batched(self, net: nn.Module, crops: Pixels) -> tuple[Floats, ...]:
        parts = [net(self._tensor(crops[i : i + 256])) for i in range(0, max(1, len(crops)), 256)]
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


def windows(p: Floats, offsets: Floats, threshold: float, zoom: tuple[float, float]) -> Floats:
    """PNet's answer (h, w), (4, h, w) at one level as rows x0 y0 x1 y1 p offsets(4), frame px, best first."""
    rows, columns = np.nonzero(p >= threshold)
    order = np.argsort(-p[rows, columns], kind="stable")[:MAX_CANDIDATES]
    rows, columns = rows[order], columns[order]
    corner = np.stack([columns, rows], 1) * float(STRIDE_PX)
    boxes = np.concatenate([corner * zoom, (corner + CELL_PX) * zoom], 1)
    return np.concatenate([boxes, p[rows, columns][:, None], offsets[:, rows, columns].T], 1).astype(np.float32)


def keep_best(boxes: Floats, p: Floats, threshold: float, *, of_smaller: bool = False) -> Ints:
    """Non-maximum suppression: indices to keep, best first.

    Overlap is intersection over union, or over the smaller box (`of_smaller`), which also drops a box inside another.
    """
    area = sides(boxes).prod(1)
    order = np.argsort(-p, kind="stable")
    kept = []
    while len(order):
        best, rest = order[0], order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[rest, :2])
        high = np.minimum(boxes[best, 2:], boxes[rest, 2:])
        shared = np.clip(high - low, 0, None).prod(1)
        whole = np.minimum(area[best], area[rest]) if of_smaller else area[best] + area[rest] - shared
        order = rest[shared <= threshold * whole]
    return np.array(kept, dtype=np.intp)


def sides(boxes: Floats) -> Floats:
    """Width and height (N, 2)."""
    return boxes[:, 2:4] - boxes[:, :2]


def squared(boxes: Floats) -> Floats:
    """Boxes grown to squares around their centres."""
    centre, half = (boxes[:, :2] + boxes[:, 2:]) / 2, sides(boxes).max(1, keepdims=True) / 2
    return np.concatenate([centre - half, centre + half], 1)


def resize(frame: Pixels, width: int, height: int) -> Pixels:
    """Resample without aliasing."""
    shrinks = width * height < frame.shape[0] * frame.shape[1]
    out = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return np.asarray(out, dtype=np.uint8)


def mipmaps(frame: Pixels, scale: float) -> Mips:
    """`frame` at `scale` (if that shrinks it), then halved again and again."""
    height, width = frame.shape[:2]
    if scale < 1:
        frame = resize(frame, max(1, round(width * scale)), max(1, round(height * scale)))
    images = [frame]
    while min(images[-1].shape[:2]) >= 2 * CELL_PX:
        images.append(resize(images[-1], images[-1].shape[1] // 2, images[-1].shape[0] // 2))
    return Mips(images, width, height, min(scale, 1.0))


def cut(mips: Mips, boxes: Floats, size: int) -> Pixels:
    """Crops (N, size, size, 3) of square `boxes` given in frame pixels; black outside of the frame."""
    crops = np.empty((len(boxes), size, size, 3), np.uint8)
    for crop, (x0, y0, x1, _) in zip(crops, boxes.tolist(), strict=True):
        step = max(x1 - x0, 1e-3) / size  # frame pixels per crop pixel
        index = min(max(int(np.log2(step * mips.scale)), 0), len(mips.images) - 1) if step * mips.scale > 1 else 0
        image = mips.images[index]
        zoom_x, zoom_y = image.shape[1] / mips.width, image.shape[0] / mips.height
        # warpAffine counts from pixel centres: crop centre i + 0.5 lies at frame x0 + (i + 0.5) * step
        matrix = np.array(
            [
                [step * zoom_x, 0, (x0 + step / 2) * zoom_x - 0.5],
                [0, step * zoom_y, (y0 + step / 2) * zoom_y - 0.5],
            ]
        )
        cv2.warpAffine(image, matrix, (size, size), dst=crop, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return crops


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
            if key == {"rnet": "features.9.weight", "onet": "features.12.weight"}.get(name):
                value = value.reshape(len(value), 3, 3, -1).permute(0, 3, 2, 1).reshape(len(value), -1)
            state[f"{name}.{key}"] = value.contiguous()
    safetensors.torch.save_file(state, out)


if __name__ == "__main__":
    convert(*map(Path, sys.argv[1:5]))
