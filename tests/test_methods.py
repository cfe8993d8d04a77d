"""LAE and its peers behind one interface: shapes, learning, which loss trains what."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from sitters import TINY

from scanner.errors import BadWeights
from scanner.training import losses
from scanner.training.arms import ARMS, DEFAULT, PAPER, PEERS, SMOKE, SMOKE_ARMS, Scale
from scanner.training.baselines import ForensicTransfer, MesoInception, XceptionStyle
from scanner.training.comparator import Comparator, load_comparator
from scanner.training.discriminator import Discriminator
from scanner.training.losses import Weights
from scanner.training.methods import Batch, LocalityAware

LATENT_ONLY = Weights(pixel=0, perceptual=0, adversarial=0)


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(threads)


def batch(*, candidates=0):
    """Two real and two fake pictures, the fakes rough, and candidates like them with half of the picture masked."""
    x = torch.full((4 + candidates, 3, 256, 256), 0.5)
    x[2:] += 0.2 * torch.randn(2 + candidates, 3, 256, 256)
    mask = torch.zeros(4 + candidates, 64, 64)
    mask[2:, :32] = 1
    return Batch(x.clamp(0, 1), mask, torch.tensor([1.0, 1.0] + [0.0] * (2 + candidates)), 4)


# ---------------------------------------------------------------- what is there


@pytest.mark.parametrize("name", ARMS)
def test_every_arm_scores_and_has_losses(name):
    method = ARMS[name].method(SMOKE).train()
    parts = method.losses(batch(candidates=2))
    assert all(torch.isfinite(value) for value in parts.values())
    seen = method.eval().look(batch().x)
    assert seen.score.shape == (4,)
    assert seen.attention_map is None or seen.attention_map.shape == (4, 16, 16)
    assert ((seen.a_real > seen.a_fake) == (seen.score < 0)).all(), "the built-in rule"


def test_the_arms_hold_the_ablation_and_the_peers():
    assert {*DEFAULT, *SMOKE_ARMS, *PEERS} <= set(ARMS)
    assert {f"({letter})" for letter in "abcdef"} <= {arm.words[:3] for arm in ARMS.values()}
    assert {arm.masks for arm in ARMS.values()} == {0, 0.01, 0.03, 1.0}


def test_arms_that_differ_in_masks_only_share_stage_one():
    same = {ARMS[name].before_masks for name in ("lae", "lae-1", "lae-all", "lae-random", "lae-no-masks", "lae-raw")}
    assert len(same) == 1
    assert ARMS["lae-pixel"].before_masks not in same
    assert ARMS["lae-paper"].before_masks not in same


def test_the_peers_have_the_size_that_they_are_known_for():
    assert sum(p.numel() for p in MesoInception().parameters()) == 28_615  # as published
    assert sum(p.numel() for p in Discriminator().parameters()) == pytest.approx(11.2e6, rel=0.01)
    assert ForensicTransfer().encoder(torch.zeros(1, 3, 256, 256)).shape == (1, 128, 16, 16)


def test_the_paper_scale_is_the_papers():
    assert (PAPER.pairs, PAPER.candidates, PAPER.lr_1, PAPER.lr_2) == (32, 32, 1e-3, 1e-4)
    assert (PAPER.epochs_1, PAPER.patience, PAPER.epochs_2, PAPER.decoded, PAPER.adversary_width) == (30, 5, 15, 1, 64)


@pytest.mark.parametrize(("make", "rate"), [(MesoInception, 1e-2), (XceptionStyle, 1e-3), (ForensicTransfer, 1e-3)])
def test_a_peer_learns_one_batch_by_heart(make, rate):
    method = (make(widths=(4, 8, 16), middle=1) if make is XceptionStyle else make()).train()
    optimizer = torch.optim.Adam(method.parameters(), lr=rate)
    small = Batch(batch().x[:, :, ::2, ::2] if make is not MesoInception else batch().x, *batch()[1:])
    found = []
    for _ in range(8):
        parts = method.losses(small)
        found.append(parts.get("class", parts.get("latent")).item())
        optimizer.zero_grad()
        sum(parts.values()).backward()
        optimizer.step()
    assert min(found[-3:]) < 0.85 * found[0]


def test_forensic_transfer_decodes_the_right_half_only():
    method, given = ForensicTransfer().train(), batch()
    z = method.encoder((given.x - method.mean) / method.std).detach()
    seen = []
    method.decoder.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].detach()))
    method.losses(given)
    torch.testing.assert_close(seen[0][:2, :64], z[:2, :64])
    assert (seen[0][:2, 64:] == 0).all()
    assert (seen[0][2:, :64] == 0).all()


# ---------------------------------------------------------------- LAE


def test_weights_decide_which_losses_there_are():
    def names(weights, **more):
        return set(LocalityAware(TINY, weights, adversary_width=4, **more).train().losses(batch(candidates=2)))

    both = {"latent", "latent_candidates"}
    assert names(LATENT_ONLY) == both | {"attention"}
    assert names(Weights()) == both | {"attention", "pixel", "adversarial"}, "no VGG-16 file, no perceptual loss"
    assert names(Weights(decision=1, pair=1, local=1, attention=0, adversarial=0)) == both | {
        "pixel", "decision", "pair", "local",
    }  # fmt: skip


def test_without_candidates_no_mask_is_looked_at():
    method = LocalityAware(TINY, Weights(adversarial=0, local=1)).train()
    unreadable = batch()._replace(mask=torch.full((4, 64, 64), torch.nan))
    assert set(method.losses(unreadable)) == {"latent", "pixel"}


def test_only_candidates_are_told_where():
    method = LocalityAware(TINY, Weights(adversarial=0)).eval()
    given = batch(candidates=2)
    spoilt = given._replace(mask=torch.cat([torch.full((4, 64, 64), torch.nan), given.mask[4:]]))
    torch.testing.assert_close(method.losses(given), method.losses(spoilt))


def test_the_decoder_and_the_adversary_learn_from_their_own_losses():
    method = LocalityAware(TINY, Weights(latent=0), adversary_width=4).train()
    sum(method.losses(batch()).values()).backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in method.lae.decoder.parameters())
    assert all(p.grad is None for p in method.adversary.parameters())
    for parameter in method.lae.parameters():
        parameter.grad = None
    method.adversary_loss().backward()
    assert all(p.grad is not None for p in method.adversary.parameters())
    assert all(p.grad is None for p in method.lae.parameters())


def test_frozen_statistics_stay_those_of_stage_one():
    def statistics(method):
        return method.lae.encoder.stages[0].norm.running_mean.clone()

    for frozen in (False, True):
        method = LocalityAware(TINY, LATENT_ONLY)
        method.frozen_bn = frozen
        before = statistics(method)
        method.train().losses(batch(candidates=2))
        assert (statistics(method) == before).all() == frozen


def test_a_verdict_needs_the_encoder_only():
    method = LocalityAware(TINY, Weights(), adversary_width=4).eval()
    expected = method.score(batch().x[:2] * 0 + 0.5)
    del method.lae.decoder, method.adversary
    torch.testing.assert_close(method.score(batch().x[:2] * 0 + 0.5), expected)


# ---------------------------------------------------------------- adversarial and perceptual


def test_the_adversary_and_its_opponent_want_opposite_things():
    low, high = torch.tensor([-3.0]), torch.tensor([3.0])
    assert losses.adversarial_loss(high) < 0.1 < losses.adversarial_loss(low)
    assert losses.discriminator_loss(high, low) < 0.1 < losses.discriminator_loss(low, high)


def test_the_discriminator_has_the_optimiser_of_its_paper():
    (group,) = Discriminator(4).optimizer().param_groups
    assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


@pytest.fixture(scope="module")
def vgg(tmp_path_factory):
    """Files of random weights with the names and shapes of a VGG-16's, a classifier's layer among them."""
    folder = tmp_path_factory.mktemp("vgg")
    tensors = {**Comparator().state_dict(), "classifier.6.bias": torch.zeros(1000)}
    save_file(tensors, folder / "vgg.safetensors")
    torch.save(tensors, folder / "vgg.pth")
    return folder


def test_the_comparator_is_the_tenth_convolution_of_a_vgg():
    comparator = Comparator()
    assert comparator(torch.rand(1, 3, 64, 64)).shape == (1, 512, 8, 8)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in comparator.modules()) == 10
    assert list(comparator.state_dict())[-1] == "features.21.bias"


@pytest.mark.parametrize("name", ["vgg.safetensors", "vgg.pth"])
def test_with_a_file_the_perceptual_loss_trains_the_decoder_but_not_the_comparator(vgg, name):
    comparator = load_comparator(vgg / name)
    shown = torch.rand(1, 3, 32, 32, requires_grad=True)
    assert losses.perceptual_loss(comparator, shown, shown.detach()) == 0
    losses.perceptual_loss(comparator, shown, torch.rand(1, 3, 32, 32)).backward()
    assert shown.grad.abs().max() > 0
    assert not any(p.requires_grad for p in comparator.parameters())


def test_the_comparator_is_neither_saved_nor_trained(vgg):
    method = LocalityAware(TINY, Weights(adversarial=0), vgg=vgg / "vgg.safetensors", decoded=4)
    assert not any("features.21" in name for name in method.state_dict())
    assert "perceptual" in method.train().losses(batch())


def test_a_file_that_is_no_vgg_is_refused(tmp_path, vgg):
    (tmp_path / "text.pth").write_text("not weights")
    save_file({"features.0.weight": torch.zeros(1)}, tmp_path / "other.safetensors")
    save_file({name: torch.zeros(1) for name in Comparator().state_dict()}, tmp_path / "shapes.safetensors")
    for name in ("text.pth", "other.safetensors", "shapes.safetensors", "none.pth"):
        with pytest.raises(BadWeights, match="holds no VGG-16"):
            load_comparator(tmp_path / name)


class Evil:
    def __reduce__(self):
        return (np.save, ("never", np.zeros(1)))


def test_a_weights_file_runs_no_code(tmp_path):
    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(BadWeights):
        load_comparator(tmp_path / "evil.pth")


def test_only_some_pictures_are_decoded():
    method = LocalityAware(TINY, Weights(adversarial=0), decoded=Scale().decoded).train()
    counts = []
    method.lae.decoder.register_forward_pre_hook(lambda _, arguments: counts.append(len(arguments[0])))
    method.losses(batch())
    assert counts == [1]


def test_an_unknown_norm_is_refused():
    with pytest.raises(ValueError, match="no norm 'mean' of the attention loss; there are density, max, raw"):
        losses.attention_loss(torch.zeros(1, 4, 4), torch.zeros(1, 64, 64), norm="mean")
