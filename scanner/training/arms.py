"""Arm names in, methods and their training out: what is compared with what (8.8).

One reason: every number in a report belongs to a row of this one table.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from scanner.detection.lae import LAEConfig
from scanner.training.active import Ranking
from scanner.training.baselines import ForensicTransfer, MesoInception, XceptionStyle
from scanner.training.losses import Weights
from scanner.training.methods import LocalityAware, Method

Kind = Literal["lae", "meso_inception", "xception", "forensic_transfer"]
BatchNorm = Literal["mixed", "frozen"]


@dataclass(frozen=True)
class Scale:
    """The budget: the same for every arm. `Scale()` is for two cores and a night, `PAPER` as 8.7 has it.

    `EVENING` asks less: crops of half the side cost a quarter, and show a quarter of the pixels that forging left.
    """

    crop_px: int = 256
    train_pairs: int = 1000  # of each seen family, where we forge ourselves
    val_pairs: int = 200
    test_pairs: int = 300
    pairs: int = 16  # real/fake pairs in a batch
    candidates: int = 8  # of them join a batch in stage 2
    epochs_1: int = 15
    patience: int = 5  # epochs without a rise in seen-validation accuracy end stage 1
    epochs_2: int = 8
    lr_1: float = 1e-3
    lr_2: float = 1e-4
    per_group: int = 2  # candidates from one video or identity, at most
    decoded: int = 4  # every 4th picture is reconstructed: the decoder costs as much as the encoder
    adversary_width: int = 16  # at 64 the discriminator costs 20 times the encoder
    workers: int = 1  # processes that open pictures
    model: LAEConfig | None = None  # instead of the arm's own network: for tests


PAPER = Scale(
    train_pairs=5000, pairs=32, candidates=32, epochs_1=30, epochs_2=15, decoded=1, adversary_width=64, workers=8
)
EVENING = Scale(
    crop_px=128,
    train_pairs=500,
    val_pairs=150,
    test_pairs=300,
    pairs=8,
    candidates=4,
    epochs_1=12,
    epochs_2=5,
    workers=0,
)
SMOKE = Scale(
    train_pairs=18, val_pairs=4, test_pairs=4, pairs=4, candidates=2, epochs_1=1, patience=1, epochs_2=1, per_group=8,
    adversary_width=4, workers=0, model=LAEConfig(patch=4, widths=(8, 8, 16), latent=16),
)  # fmt: skip
SCALES = {"evening": EVENING, "night": Scale(), "paper": PAPER, "smoke": SMOKE}


@dataclass(frozen=True)
class Arm:
    """One row of the table. What is not LAE's own is the same for every arm."""

    words: str  # what it shows
    kind: Kind = "lae"
    model: LAEConfig = field(default_factory=LAEConfig)
    weights: Weights = field(default_factory=Weights)
    masks: float = 0.0  # share of the training images: up to 0.03 they are selected, 1.0 means every fake
    ranking: Ranking = "real"
    attention_norm: str = "density"  # the one that removed a planted shortcut (8.4)
    batch_norm: BatchNorm = (
        "mixed"  # stage 2: candidates share a batch with others, or statistics stay those of stage 1
    )
    augment: bool = False  # a web life on the fly; off in the faithful protocol

    def method(self, scale: Scale, vgg: Path | None = None) -> Method:
        """The untrained network; raises BadWeights when `vgg` is not a VGG-16 file."""
        if self.kind == "meso_inception":
            return MesoInception(scale.crop_px)
        if self.kind == "xception":
            return XceptionStyle()
        if self.kind == "forensic_transfer":
            return ForensicTransfer()
        return LocalityAware(
            replace(scale.model or self.model, size=scale.crop_px),
            self.weights,
            attention_norm=self.attention_norm,
            vgg=vgg,
            decoded=scale.decoded,
            adversary_width=scale.adversary_width,
        )

    @property
    def before_masks(self) -> "Arm":
        """All of it that matters in stage 1: arms that agree in it share that stage."""
        plain = replace(self.weights, attention=0.0, local=0.0)
        return replace(self, words="", weights=plain, masks=0.0, ranking="real", attention_norm="", batch_norm="mixed")


_LATENT = Weights(pixel=0.0, perceptual=0.0, adversarial=0.0)
_FULL = Weights()

ARMS: dict[str, Arm] = {
    # 8.8 a-d: the losses one by one, no masks
    "lae-latent": Arm("(a) encoder and L_lat only", weights=_LATENT),
    "lae-pixel": Arm("(b) + pixel loss", weights=replace(_LATENT, pixel=1.0)),
    "lae-perceptual": Arm("(c) + perceptual loss", weights=replace(_LATENT, pixel=1.0, perceptual=1.0)),
    "lae-no-masks": Arm("(d) + adversarial loss: all of L_rec, 0 masks", weights=_FULL),
    # 8.8 e: masks
    "lae-1": Arm("(e) + L_att, masks for 1 % of the images, selected", masks=0.01),
    "lae": Arm("(e) + L_att, masks for 3 % of the images, selected: the method of the paper", masks=0.03),
    "lae-all": Arm("(e) + L_att, masks for every fake: the upper bound", masks=1.0),
    # 8.8 f: does selection help, do masks help
    "lae-random": Arm("(f) masks for 3 %, drawn at random", masks=0.03, ranking="random"),
    "lae-unmasked": Arm(
        "3 % selected and seen more often, but L_att off", weights=replace(_FULL, attention=0.0), masks=0.03
    ),
    # where the paper is silent
    "lae-both": Arm("3 % selected by a_T + |a_F - 1|", masks=0.03, ranking="both"),
    "lae-frozen": Arm("batch-norm statistics kept in stage 2", masks=0.03, batch_norm="frozen"),
    "lae-paper": Arm(
        "the literal network; |z|-weighted map, max norm", model=LAEConfig.paper(), masks=0.03, attention_norm="max"
    ),
    "lae-abs": Arm("|z|-weighted map, max norm", model=LAEConfig(attention="abs"), masks=0.03, attention_norm="max"),
    "lae-raw": Arm("raw norm of L_att", masks=0.03, attention_norm="raw"),
    # ours
    "lae-strong": Arm(
        "ours: + decision, pair and local losses, masks for 3 %",
        weights=Weights(
            latent=0.2, pixel=0.1, perceptual=0.0, adversarial=0.0, attention=0.3, decision=1, pair=1, local=1
        ),
        masks=0.03,
    ),
    # peers
    "meso-inception": Arm("MesoInception-4 (2018)", kind="meso_inception"),
    "xception": Arm("Xception-style (2017)", kind="xception"),
    "forensic-transfer": Arm("ForensicTransfer (2018)", kind="forensic_transfer"),
}
PEERS = ("meso-inception", "xception", "forensic-transfer")
SMOKE_ARMS = ("lae", "lae-no-masks", "meso-inception")
DEFAULT = ("lae", "lae-random", "lae-no-masks", "lae-strong", *PEERS)
"""What `laescan train` runs unless asked otherwise: the paper's claims, and nothing more."""
