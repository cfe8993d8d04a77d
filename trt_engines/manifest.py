"""What stands beside every engine: what it was built from, for and by, how exact and how fast it was found to be.

    manifest, what is wanted, what is here -> the fields that do not fit, in words

One reason: an engine is machine code for one GPU, driver and TensorRT; run elsewhere it is wrong, slow or refused late.
"""

import re
from typing import Annotated, Literal, Self

import msgspec
from msgspec import Meta

Precision = Literal["fp32", "bf16", "fp16", "fp8", "int8"]
QUANTIZED: tuple[Precision, ...] = ("fp8", "int8")
Size = Annotated[int, Meta(ge=1, le=4096)]


class Profile(msgspec.Struct, frozen=True):
    """Batches that an engine takes: the least, the one it is tuned for, the most; raises ValueError out of order."""

    least: Size
    best: Size
    most: Size

    def __post_init__(self) -> None:
        if not self.least <= self.best <= self.most:
            msg = f"a profile rises, as 1:64:256 does, not {self}"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> Self:
        """From `1:64:256`; raises ValueError."""
        if not re.fullmatch(r"\d{1,4}:\d{1,4}:\d{1,4}", text):
            msg = f"a profile is three batch sizes, as 1:64:256, not {text!r}"
            raise ValueError(msg)
        return msgspec.convert(dict(zip(("least", "best", "most"), map(int, text.split(":")), strict=True)), cls)

    def __str__(self) -> str:
        return f"{self.least}:{self.best}:{self.most}"


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What an engine depends on besides its network; `capability` is "" on a CPU."""

    device: str  # "NVIDIA H100 80GB HBM3", or a CPU's model name
    capability: str  # "9.0"
    driver: str
    versions: dict[str, str]  # torch, cuda, and the compiler's own


class Guard(msgspec.Struct, frozen=True, kw_only=True):
    """How far the engine's answers are from the plain fp32 network's, over the crops that it was held against."""

    crops: int
    worst_score: float  # largest |difference| of P(manipulated)
    worst_raw: float
    auc_loss: float | None  # AUC of fp32 less the engine's; None where the crops had no labels


class Timing(msgspec.Struct, frozen=True, kw_only=True):
    """One batch size, measured when the engine was built."""

    batch: int
    p50_ms: float
    p99_ms: float
    crops_per_s: float


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The engine that somebody looks for; precision None: any."""

    model_id: str
    precision: Precision | None = None
    profile: Profile | None = None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field that must fit, and what was measured."""

    format: Literal["laescan-engine-1"] = "laescan-engine-1"
    model_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{16}$")]
    sha256: Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]
    size_bytes: Annotated[int, Meta(gt=0)]
    flavour: str
    precision: Precision
    profile: Profile
    machine: Machine
    guard: Guard
    timings: tuple[Timing, ...]
    export_s: float
    build_s: float
    load_s: float
    built_at: str  # ISO 8601, UTC


def misfits(manifest: Manifest, wanted: Wanted, here: Machine) -> list[str]:
    """What does not fit, one line each; empty when the engine may be used."""
    there = manifest.machine
    pairs = [
        ("model", manifest.model_id, wanted.model_id),
        ("precision", manifest.precision, wanted.precision or manifest.precision),
        ("profile", str(manifest.profile), str(wanted.profile or manifest.profile)),
        ("device", there.device, here.device),
        ("compute capability", there.capability, here.capability),
        ("driver", there.driver, here.driver),
        *(
            (name, there.versions.get(name, "none"), here.versions.get(name, "none"))
            for name in sorted(there.versions | here.versions)
        ),
    ]
    return [f"{name}: built for {built}, here is {found}" for name, built, found in pairs if built != found]
