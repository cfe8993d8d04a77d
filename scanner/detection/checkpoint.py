"""An encoder with its calibration <-> one safetensors file that cannot run code when loaded.

In: a trained `Encoder`, a `Calibration`, a card (what it was trained and measured on). Out: the same, verified.
One reason: whoever judges must know exactly which weights judged; altered or foreign ones are an error, never a guess.

Tensors are `Encoder.state_dict()`; the metadata hold `format`, `config` (LAEConfig), `calibration` and `card` as JSON.
`SHA256SUMS` beside the file holds its digest, in the form that `sha256sum -c` reads.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scanner.detection.lae import Encoder, LAEConfig
from scanner.errors import BadWeights
from scanner.verdict import Calibration

FORMAT = "laescan-encoder-1"
PREPROCESSING = "crop-1"
"""Raise it whenever `faces.align` or `faces.TEMPLATE` cuts another crop: it is part of `model_id`."""
SHIPPED = Path(__file__).parents[1] / "weights" / "face.safetensors"
SHIPPED_REGIONS = SHIPPED.with_name("inpaint.safetensors")
TILING = "tiles-1"
"""Raise it whenever `tiles` cuts or merges otherwise: it is part of the `model_id` of two checkpoints."""
_SUMS = "SHA256SUMS"


@dataclass(frozen=True)
class Checkpoint:
    """A verified encoder, in eval mode, and what belongs to it."""

    encoder: Encoder
    calibration: Calibration
    card: dict[str, Any]  # JSON: how it was trained, what it was measured to do, `golden` scores
    model_id: str  # 16 hex digits: weights + config + preprocessing + calibration
    is_listed: bool  # its digest stood in SHA256SUMS, and was right


def save_checkpoint(path: Path, encoder: Encoder, calibration: Calibration, card: Mapping[str, Any]) -> None:
    """Write the checkpoint and its line in SHA256SUMS; adds the eager fp32 encoder's `golden` scores to the card."""
    encoder = encoder.eval()
    golden = [round(float(score), 6) for score in eager_scores(encoder, golden_crops())]
    metadata = {
        "format": FORMAT,
        "config": json.dumps(asdict(encoder.config)),
        "calibration": msgspec.json.encode(calibration).decode(),
        "card": json.dumps({**card, "golden": golden}),
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in encoder.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(tensors, path, metadata=metadata)
    sums = {**_read_sums(path.parent), path.name: hashlib.sha256(path.read_bytes()).hexdigest()}
    (path.parent / _SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(sums.items())))


def load_checkpoint(path: Path) -> Checkpoint:
    """Read and verify a checkpoint; a shipped one must be listed in SHA256SUMS, another one must match if it is.

    Raises BadWeights when it is missing, altered or of another version.
    """
    is_listed = _verify(path)
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise _altered(path) from error
    if metadata.get("format") != FORMAT:
        msg = f"{path} is not a checkpoint of this version ({FORMAT}); use one that was made by `laescan train`"
        raise BadWeights(msg)
    try:
        encoder = Encoder(_config(metadata["config"]))
        encoder.load_state_dict(tensors)
        calibration = msgspec.json.decode(metadata["calibration"], type=Calibration)
        card = msgspec.json.decode(metadata["card"], type=dict[str, Any])
    except (KeyError, RuntimeError, msgspec.DecodeError) as error:  # RuntimeError: names or shapes that do not fit
        msg = f"{path} does not fit this version of the network ({error}); use one that was made by it"
        raise BadWeights(msg) from error
    encoder.eval().requires_grad_(requires_grad=False)
    return Checkpoint(encoder, calibration, card, _model_id(tensors, metadata), is_listed)


def both(face_id: str, region_id: str) -> str:
    """The `model_id` of two checkpoints that judge together: what they say is never served for what one says."""
    return hashlib.sha256(f"{TILING}\n{face_id}\n{region_id}\n".encode()).hexdigest()[:16]


def golden_crops() -> npt.NDArray[np.uint8]:
    """Four synthetic crops (4, 256, 256, 3) uint8, by integer arithmetic: the same bits on every machine, for ever."""
    y, x = np.indices((256, 256), np.int64)
    planes = [
        ((x + 2 * y) >> 2) ^ ((x * y) >> 7),
        (x * x + y * y) >> 6,
        ((x >> 4) + (y >> 4)) * 37 + ((x * 73) ^ (y * 151)) % 9,
        128 + ((x - 128) * (y - 128) >> 7) - ((x ^ y) & 15),
        255 - ((x * 3) ^ y) // 2,
        (x * 5 + (y * y >> 5)) // 3,
    ]
    crops = [np.stack([planes[i], planes[i + 1], planes[i + 2]], 2) & 255 for i in range(4)]
    return np.stack(crops).astype(np.uint8)


def eager_scores(encoder: Encoder, crops: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Raw scores (M,) of crops (M, H, W, 3) uint8 by the plain fp32 network: what every backend must reproduce."""
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).to(next(encoder.parameters()).device).float() / 255
    with torch.inference_mode():
        scores: npt.NDArray[np.float32] = encoder(x).score.float().cpu().numpy()
    return scores


def _verify(path: Path) -> bool:
    """Hold the file against SHA256SUMS beside it; false when it is not listed there."""
    if not path.is_file():
        msg = f"no checkpoint at {path}; install laescan again, or let {_ways_out(path)}"
        raise BadWeights(msg)
    expected = _read_sums(path.parent).get(path.name)
    if expected is None and path not in {SHIPPED, SHIPPED_REGIONS}:
        return False
    if hashlib.sha256(path.read_bytes()).hexdigest() != expected:
        raise _altered(path)
    return True


def _ways_out(missing: Path) -> str:
    if missing == SHIPPED_REGIONS:
        return "LAESCAN_REGION_WEIGHTS name one, or judge faces only with LAESCAN_REGIONS=false"
    return "LAESCAN_WEIGHTS name one"


def _read_sums(folder: Path) -> dict[str, str]:
    """File name -> digest."""
    sums = folder / _SUMS
    lines = sums.read_text().splitlines() if sums.is_file() else []
    return {name: digest for digest, _, name in (line.partition("  ") for line in lines)}


def _altered(path: Path) -> BadWeights:
    return BadWeights(f"{path} is damaged or was altered (it does not match its digest); install laescan again")


def _config(text: str) -> LAEConfig:
    """The network's shape; a field that this version does not know is an error, for it would be ignored."""
    unknown = set(msgspec.json.decode(text, type=dict[str, Any])) - {field.name for field in fields(LAEConfig)}
    if unknown:
        msg = f"unknown field {', '.join(sorted(unknown))}"
        raise msgspec.ValidationError(msg)
    return msgspec.json.decode(text, type=LAEConfig)


def _model_id(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> str:
    """Digest of everything that moves a verdict; the card does not."""
    digest = hashlib.sha256(f"{PREPROCESSING}\n{metadata['config']}\n{metadata['calibration']}\n".encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
