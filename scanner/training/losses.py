"""The losses of the LAE: tensors in, scalars out (means over the batch).

Numbers in brackets are sections of our reconstruction of the paper; l = 1 for real, 0 for fake, G = forgery mask.
"""

import torch
import torch.nn.functional as nnf
from torch import Tensor

from scanner.lae import Latent


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


def attention_loss(attention_map: Tensor, mask: Tensor, *, norm: str = "density") -> Tensor:
    """L_att: the attention map against the forgery mask, (B, h, w) against (B, H, W) in 0..1 (3.3).

    density  mean |M - G / mean G| on the map's grid: both sides have mean 1 for a fake, so it agrees with L_lat, and
             every contribution from outside the mask costs.  An empty mask (a real picture) asks for an empty map.
    max      mean (M+ / max M - G)^2 at the mask's size: the usual comparison of a map with a 0/1 mask.
    raw      mean (M - G)^2 at the mask's size: the literal reading; it conflicts with L_lat unless the mask fills the
             picture.
    """
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
