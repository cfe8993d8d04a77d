"""Batches in, losses and scores out: the one interface through which LAE and its peers are trained and measured.

One reason: the same loop, data, splits and budget for all, so that a difference in the table is one of method.
"""

from abc import abstractmethod
from pathlib import Path
from typing import NamedTuple, Self

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scanner.detection.lae import LAE, LAEConfig, Latent
from scanner.training import losses
from scanner.training.comparator import Comparator, load_comparator
from scanner.training.discriminator import Discriminator
from scanner.training.losses import Weights

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, as for LAE


class Batch(NamedTuple):
    """An ordinary batch, reals first and then fakes, in stage 2 followed by candidates."""

    x: Tensor  # (B, 3, S, S) float 0..1
    mask: Tensor  # (B, 64, 64) float 0..1; only those of candidates are ever used, and zeros for reals
    real: Tensor  # (B,) float, 1 = real
    ordinary: int  # so many come first; the others are candidates, all of them fakes with masks


class Seen(NamedTuple):
    """What a method makes of a batch in eval mode."""

    score: Tensor  # (B,) higher = more likely fake; above 0 is the built-in rule's "fake"
    a_real: Tensor  # (B,) how real it looks, about 0..1: what selection ranks by
    a_fake: Tensor  # (B,)
    attention_map: Tensor | None  # (B, h, w), None where the method has none


class Method(nn.Module):
    """A detector with its losses. `adversary` has its own optimiser and learns after each step."""

    adversary: Discriminator | None

    def __init__(self) -> None:
        super().__init__()
        self.adversary = None

    @abstractmethod
    def look(self, x: Tensor) -> Seen:
        """Judge x (B, 3, S, S) in 0..1."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted losses by name; the step descends their sum."""

    def adversary_loss(self) -> Tensor:
        """What the adversary pays for the last batch."""
        raise NotImplementedError

    def score(self, x: Tensor) -> Tensor:
        """Raw scores (B,) of x (B, 3, S, S) in 0..1."""
        return self.look(x).score


class Classifier(Method):
    """A network with one logit, trained by cross-entropy; subclasses give `logit`."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(STD)[:, None, None], persistent=False)

    @abstractmethod
    def logit(self, x: Tensor) -> Tensor:
        """Normalised x (B, 3, S, S) -> (B,), high for a fake."""

    def look(self, x: Tensor) -> Seen:
        """The logit; what it leaves to the real class stands for a_T."""
        logit = self.logit((x - self.mean) / self.std)
        return Seen(logit, torch.sigmoid(-logit), torch.sigmoid(logit), None)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropy; masks are of no use to it."""
        return {"class": nnf.binary_cross_entropy_with_logits(self.look(batch.x).score, 1 - batch.real)}


class LocalityAware(Method):
    """LAE with the losses of its arm (3.1 to 3.4). Raises BadWeights when `vgg` is not a VGG-16 file."""

    def __init__(
        self,
        config: LAEConfig,
        weights: Weights,
        *,
        attention_norm: str = "density",
        vgg: Path | None = None,
        decoded: int = 1,
        adversary_width: int = 64,
    ) -> None:
        """Every `decoded`-th picture is reconstructed, the adversary has `adversary_width` channels at first."""
        super().__init__()
        self.frozen_bn = False  # stage 2 may set it
        self.lae = LAE(config)
        self.weights, self.attention_norm, self.decoded = weights, attention_norm, decoded
        self.adversary = Discriminator(adversary_width, config.size) if weights.adversarial else None
        # In a list, so that its 7.6 M frozen weights are neither saved nor optimised with ours.
        self._comparator: list[Comparator] = [load_comparator(vgg)] if vgg and weights.perceptual else []
        self._shown: tuple[Tensor, Tensor] | None = None  # x and x^ of the last batch, for the adversary

    def look(self, x: Tensor) -> Seen:
        """By the encoder only; the decoder plays no part in a verdict."""
        latent = self.lae.encoder(x)
        return Seen(latent.score, latent.a_real, latent.a_fake, latent.attention_map)

    def train(self, mode: bool = True) -> Self:  # noqa: FBT001, FBT002 - torch's signature
        """As usual, but with `frozen_bn` batch norm uses and keeps the statistics of stage 1 (8.3)."""
        super().train(mode)
        if self.frozen_bn:
            for module in self.lae.encoder.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Ordinary part: L_rec + L_lat and ours; candidates: L_lat + L_att (8.7).

        Candidates pass the encoder in the same batch, so that batch-norm statistics are never theirs alone (8.3).
        """
        w, n = self.weights, batch.ordinary
        everything = self.lae.encoder(batch.x)
        ordinary = Latent(*(t[:n] for t in everything))
        x, real = batch.x[:n], batch.real[:n]
        parts = {"latent": w.latent * losses.latent_loss(ordinary, real)}
        if w.decision:
            parts["decision"] = w.decision * losses.decision_loss(ordinary, real)
        if w.pair:
            parts["pair"] = w.pair * losses.pair_loss(ordinary)
        parts |= self._reconstruction(ordinary.z, x)
        if n < len(batch.x):
            candidates = Latent(*(t[n:] for t in everything))
            parts["latent_candidates"] = w.latent * losses.latent_loss(candidates, batch.real[n:])
            parts |= self._locality(candidates, batch.mask[n:])
        return parts

    def _reconstruction(self, z: Tensor, x: Tensor) -> dict[str, Tensor]:
        """L_rec (3.1); the target is always the input itself, real or fake."""
        w, comparator = self.weights, self._on(x.device)
        self._shown = None
        if not (w.pixel or comparator or self.adversary):
            return {}
        z, x = z[:: self.decoded], x[:: self.decoded]
        shown = self.lae.decoder(z)
        parts = {"pixel": w.pixel * losses.pixel_loss(shown, x)} if w.pixel else {}
        if comparator:
            parts["perceptual"] = w.perceptual * losses.perceptual_loss(comparator, shown, x)
        if self.adversary:
            self.adversary.requires_grad_(requires_grad=False)  # its own step comes later; here it passes gradients on
            parts["adversarial"] = w.adversarial * losses.adversarial_loss(self.adversary(shown))
            self._shown = (x, shown.detach())
        return parts

    def _locality(self, candidates: Latent, mask: Tensor) -> dict[str, Tensor]:
        """L_att (3.3), and ours on the evidence of each place."""
        w, parts = self.weights, dict[str, Tensor]()
        if w.attention:
            found, norm = candidates.attention_map, self.attention_norm
            parts["attention"] = w.attention * losses.attention_loss(found, mask, norm=norm)
        if w.local:
            parts["local"] = w.local * losses.local_loss(candidates, mask)
        return parts

    def adversary_loss(self) -> Tensor:
        """L_D (3.1) on the pictures of the last step."""
        assert self.adversary is not None  # noqa: S101 - narrows the type
        assert self._shown is not None  # noqa: S101 - `losses` came before
        self.adversary.requires_grad_(requires_grad=True)
        x, shown = self._shown
        return losses.discriminator_loss(self.adversary(x), self.adversary(shown))

    def _on(self, device: torch.device) -> Comparator | None:
        return self._comparator[0].to(device) if self._comparator else None
