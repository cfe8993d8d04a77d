"""The losses of the LAE: tensors in, scalars out (means over the batch).

Numbers in brackets are sections of our reconstruction of the paper; l = 1 for real, 0 for fake, G = forgery mask.

    L_rec = b1 L_pixel + b2 L_percep + b3 L_adv           (3.1)
    stage 1:  L1 = L_rec + alpha L_lat                    (3.4)
    stage 2:  L2 = l1 L_rec + l2 L_lat + l3 L_att         (3.4)
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scanner.detection.lae import Latent

ATTENTION_NORMS = ("density", "max", "raw")


@dataclass(frozen=True)
class Weights:
    """What each loss counts. The paper gives none; 1 / 1 / 0.01 keeps the adversary from dominating L_rec (8.2)."""

    latent: float = 1.0  # alpha, l2
    pixel: float = 1.0  # b1
    perceptual: float = 1.0  # b2; 0 without the user's VGG-16 file
    adversarial: float = 0.01  # b3
    attention: float = 1.0  # l3, stage 2 only
    decision: float = 0.0  # ours, not the paper's
    pair: float = 0.0  # ours, not the paper's
    local: float = 0.0  # ours, not the paper's; needs masks, so in stage 2 on candidates only


def latent_loss(latent: Latent, real: Tensor) -> Tensor:
    """L_lat = |a_T - l| + |a_F - (1 - l)| (3.2): the right half wakes, the other sleeps.

    real: (B,) float, 1 = real.
    """
    return ((latent.a_real - real).abs() + (latent.a_fake - (1 - real)).abs()).mean()


def decision_loss(latent: Latent, real: Tensor, *, sharpness: float = 6.0) -> Tensor:
    """Cross-entropy of sigmoid(sharpness * (a_F - a_T)) against fake: ours, not the paper's.

    L_lat pulls every sample with the same force; this one pulls those that are still on the wrong side.
    """
    return nnf.binary_cross_entropy_with_logits(sharpness * latent.score, 1 - real)


def pair_loss(latent: Latent, *, sharpness: float = 6.0) -> Tensor:
    """Cross-entropy of each forgery scoring above its own original: ours, not the paper's.

    The batch is reals, then their forgeries in the same order, as `data.Pairs` gives it.
    """
    real, fake = latent.score.chunk(2)
    return nnf.softplus(-sharpness * (fake - real)).mean()


def local_loss(latent: Latent, mask: Tensor, *, sharpness: float = 6.0) -> Tensor:
    """Cross-entropy of each place's own evidence against the share of it that is forged: ours, not the paper's.

    mask: (B, H, W) in 0..1, all zero for a real picture. The paper's L_att can only sharpen a map that already finds
    something: from scratch its L1 form drives F to zero, because most places are not forged. This one has a gradient
    from the first step.
    """
    area = _on_grid(mask, latent.evidence)
    # Forged and untouched places weigh the same in all: else "nothing is forged" is right 19 times of 20.
    forged = area.mean().clamp(0.01, 0.5)
    weight = area / forged + (1 - area) / (1 - forged)
    loss = nnf.binary_cross_entropy_with_logits(sharpness * latent.evidence, area, reduction="none")
    return 0.5 * (weight * loss).mean()


def pixel_loss(reconstruction: Tensor, x: Tensor) -> Tensor:
    """L_pixel = mean |x - x^| (3.1)."""
    return nnf.l1_loss(reconstruction, x)


def perceptual_loss(features: Callable[[Tensor], Tensor], reconstruction: Tensor, x: Tensor) -> Tensor:
    """L_percep = mean |C(x) - C(x^)| (3.1); C is a `comparator.Comparator`."""
    with torch.no_grad():
        target = features(x)
    return nnf.l1_loss(features(reconstruction), target)


def adversarial_loss(logit_reconstruction: Tensor) -> Tensor:
    """L_adv = -log D(x^) (3.1): what the decoder pays for being found out."""
    return nnf.softplus(-logit_reconstruction).mean()


def discriminator_loss(logit_photograph: Tensor, logit_reconstruction: Tensor) -> Tensor:
    """L_D = -log D(x) - log(1 - D(x^)) (3.1); the second logit is of the detached reconstruction."""
    return nnf.softplus(-logit_photograph).mean() + nnf.softplus(logit_reconstruction).mean()


def attention_loss(attention_map: Tensor, mask: Tensor, *, norm: str = "density") -> Tensor:
    """L_att: the attention map against the forgery mask, (B, h, w) against (B, H, W) in 0..1 (3.3).

    density  mean |M - G / mean G| on the map's grid: both sides have mean 1 for a fake, so it agrees with L_lat, and
             every contribution from outside the mask costs.  An empty mask (a real picture) asks for an empty map.
    max      mean (M+ / max M - G)^2 at the mask's size: the usual comparison of a map with a 0/1 mask.
    raw      mean (M - G)^2 at the mask's size: the literal reading; it conflicts with L_lat unless the mask fills the
             picture.

    Raises ValueError for another norm.
    """
    if norm not in ATTENTION_NORMS:
        msg = f"no norm {norm!r} of the attention loss; there are {', '.join(ATTENTION_NORMS)}"
        raise ValueError(msg)
    if norm == "density":
        area = _on_grid(mask, attention_map)
        return (attention_map - area / area.mean((1, 2), keepdim=True).clamp_min(1e-3)).abs().mean()
    m = attention_map
    if norm == "max":
        m = nnf.relu(m) / m.amax((1, 2), keepdim=True).clamp_min(1e-6).detach()
    m = nnf.interpolate(m[:, None], mask.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return torch.square(m - mask).mean()


def _on_grid(mask: Tensor, grid: Tensor) -> Tensor:
    """The share of each cell of `grid` (B, h, w) that mask (B, H, W) covers."""
    return nnf.adaptive_avg_pool2d(mask[:, None], (grid.shape[-2], grid.shape[-1]))[:, 0]
