"""Arm names in, methods and their training out: what is compared with what (8.8).

One reason: every number in a report belongs to a row of this one table.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from scanner.lae import LAEConfig
from scanner.training.active import Ranking
from scanner.training.baselines import ForensicTransfer, MesoInception, XceptionStyle
from scanner.training.losses import Weights
from scanner.training.methods import LocalityAware, Method

Kind = Literal["lae", "meso_inception", "xception", "forensic_transfer"]
BatchNorm = Literal["mixed", "frozen"]


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

    def method(self, vgg: Path | None) -> Method:
        """The untrained network; raises BadWeights when `vgg` is not a VGG-16 file."""
        if self.kind == "meso_inception":
            return MesoInception()
        if self.kind == "xception":
            return XceptionStyle()
        if self.kind == "forensic_transfer":
            return ForensicTransfer()
        return LocalityAware(self.model, self.weights, attention_norm=self.attention_norm, vgg=vgg)

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
DEFAULT = ("lae", "lae-random", "lae-no-masks", "lae-strong", *PEERS)
"""What `laescan train` runs unless asked otherwise: the paper's claims, and nothing more."""
