"""Losses: zero where the specification says zero, pulling the right way everywhere else (notes on the LAE, 8.9)."""

import pytest
import torch
from sitters import TINY

from scanner.detection.lae import LAE, Latent
from scanner.training import losses

REAL, FAKE = torch.tensor([1.0]), torch.tensor([0.0])


def latent_of(*, a_real, a_fake, attention_map=None, evidence=None):
    """A latent with these activations, flat in each half."""
    a_real, a_fake = (torch.as_tensor(a, dtype=torch.float32).reshape(-1) for a in (a_real, a_fake))
    z = torch.cat([a_real[:, None].expand(-1, 8), a_fake[:, None].expand(-1, 8)], 1)
    grid = torch.zeros(len(a_real), 4, 4)
    return Latent(
        z, a_real, a_fake, grid if attention_map is None else attention_map, grid if evidence is None else evidence
    )


def half_mask(size=64):
    mask = torch.zeros(1, size, size)
    mask[:, : size // 2] = 1
    return mask


# ---------------------------------------------------------------- latent, decision, pair


def test_the_perfect_latent_costs_nothing():
    assert losses.latent_loss(latent_of(a_real=1, a_fake=0), REAL) == 0
    assert losses.latent_loss(latent_of(a_real=0, a_fake=1), FAKE) == 0


def test_the_latent_loss_is_the_distance_of_both_halves():
    assert losses.latent_loss(latent_of(a_real=0.25, a_fake=0.5), REAL) == pytest.approx(0.75 + 0.5)
    assert losses.latent_loss(latent_of(a_real=[1, 0.25], a_fake=[0, 0.5]), torch.tensor([1.0, 0.0])) == pytest.approx(
        (0 + 0.25 + 0.5) / 2
    )


def test_the_decision_loss_falls_with_the_score_for_fakes_and_rises_for_reals():
    latents = [latent_of(a_real=0.5, a_fake=a) for a in (0.2, 0.5, 0.8)]
    real, fake = ([losses.decision_loss(latent, which) for latent in latents] for which in (REAL, FAKE))
    assert real == sorted(real)
    assert fake == sorted(fake, reverse=True)
    assert real[1] == pytest.approx(0.6931, abs=1e-3)


def test_the_pair_loss_compares_each_forgery_with_its_own_original():
    apart = losses.pair_loss(latent_of(a_real=[1, 0, 0, 0], a_fake=[0, 1, 1, 2]))  # scores -1, 1 | 1, 2
    crossed = losses.pair_loss(latent_of(a_real=[0, 0, 0, 0], a_fake=[1, 2, 0, 1]))
    level = losses.pair_loss(latent_of(a_real=[0, 0], a_fake=[1, 1]))
    assert apart < 0.01
    assert level == pytest.approx(0.6931, abs=1e-3)
    assert crossed > 2


# ---------------------------------------------------------------- where


def test_the_local_loss_wants_evidence_in_the_mask_and_none_outside():
    evidence = torch.full((1, 4, 4), -1.0)
    evidence[:, :2] = 1
    right = losses.local_loss(latent_of(a_real=0, a_fake=0, evidence=evidence), half_mask())
    silent = losses.local_loss(latent_of(a_real=0, a_fake=0), half_mask())
    wrong = losses.local_loss(latent_of(a_real=0, a_fake=0, evidence=-evidence), half_mask())
    assert right < 0.01 < silent < wrong


def test_the_local_loss_pulls_up_inside_and_down_outside_even_for_a_small_mask():
    evidence = torch.zeros(1, 4, 4, requires_grad=True)
    mask = torch.zeros(1, 64, 64)
    mask[:, :16, :16] = 1  # one cell of 16
    losses.local_loss(latent_of(a_real=0, a_fake=0, evidence=evidence), mask).backward()
    pull = -evidence.grad[0]
    assert pull[0, 0] > 0
    assert (pull.flatten()[1:] < 0).all()
    assert pull[0, 0] == pytest.approx(-pull.flatten()[1:].sum().item(), rel=1e-4)  # both sides weigh the same


def test_density_is_content_with_the_mask_scaled_to_mean_one():
    perfect = torch.zeros(1, 4, 4)
    perfect[:, :2] = 2
    assert losses.attention_loss(perfect, half_mask()) == pytest.approx(0, abs=1e-6)
    assert losses.attention_loss(perfect.flip(1), half_mask()) == pytest.approx(2)


def test_density_of_an_empty_mask_asks_for_an_empty_map():
    empty = torch.zeros(1, 64, 64)
    assert losses.attention_loss(torch.zeros(1, 4, 4), empty) == 0
    assert losses.attention_loss(torch.full((1, 4, 4), 0.3), empty) == pytest.approx(0.3)


def test_max_form_ignores_the_scale_of_the_map_and_raw_does_not():
    found = torch.zeros(1, 4, 4)
    found[:, :2] = 1
    for form, equal in (("max", True), ("raw", False)):
        one, ten = (losses.attention_loss(scale * found, half_mask(), norm=form) for scale in (1, 10))
        assert (one.item() == pytest.approx(ten.item())) == equal
        assert one < losses.attention_loss(found.flip(1), half_mask(), norm=form)
    assert losses.attention_loss(torch.ones(1, 4, 4), torch.ones(1, 64, 64), norm="raw") == 0


@pytest.mark.parametrize("form", ["density", "max", "raw"])
def test_a_dead_map_gives_a_number(form):
    dead = torch.zeros(1, 4, 4, requires_grad=True)
    loss = losses.attention_loss(dead, half_mask(), norm=form)
    loss.backward()
    assert torch.isfinite(loss)
    assert torch.isfinite(dead.grad).all()


@pytest.mark.parametrize("form", ["density", "max", "raw"])
def test_the_attention_loss_trains_the_encoder_from_the_first_layer_on_and_never_the_decoder(form):
    torch.manual_seed(0)
    model = LAE(TINY)
    latent, _ = model(torch.rand(2, 3, 256, 256))
    losses.attention_loss(latent.attention_map, half_mask().expand(2, -1, -1), norm=form).backward()
    assert model.encoder.stages[0].conv.weight.grad.abs().max() > 0
    assert model.encoder.fc.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.decoder.parameters())


def test_the_pixel_loss_is_the_mean_difference():
    assert losses.pixel_loss(torch.full((1, 3, 2, 2), 0.5), torch.full((1, 3, 2, 2), 0.2)) == pytest.approx(0.3)
