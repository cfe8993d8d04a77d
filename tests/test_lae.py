"""The network says what the specification says: shapes, the exact attention identity, no number that is not one."""

import dataclasses
import itertools

import pytest
import torch
import torch.nn.functional as nnf

from scanner.detection.lae import LAE, ConvBNReLU, Decoder, Encoder, LAEConfig, Relative

SMALL = {"size": 64, "patch": 2, "widths": (8, 8, 16, 32)}  # maps of 4 x 4, fast


def encoder(**choices):
    torch.manual_seed(0)
    return Encoder(LAEConfig(**{**SMALL, **choices})).eval()


def pictures(count=3, size=64):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(("z_act", "pool"), [*itertools.product(["relu", "none"], ["mean", "gated"])])
def test_mean_of_the_attention_map_is_the_fake_activation(z_act, pool):
    with torch.no_grad():
        latent = encoder(z_act=z_act, pool=pool, attention="sign")(pictures())
    assert latent.a_fake.min() > 0
    torch.testing.assert_close(latent.attention_map.mean((1, 2)), latent.a_fake, atol=1e-5, rtol=0)


def test_what_is_added_to_a_stage_begins_as_the_identity_and_is_learnt():
    plain, grown = encoder(), encoder(relative=True, blocks=1)
    stages = [stage for stage in grown.stages if isinstance(stage, ConvBNReLU)]
    for mine, theirs in zip(stages, plain.stages, strict=True):
        mine.load_state_dict(theirs.state_dict(), strict=False)
    grown.gate, grown.fc = plain.gate, plain.fc
    with torch.no_grad():
        torch.testing.assert_close(grown(pictures()).z, plain(pictures()).z)
    grown.train()(pictures()).score.sum().backward()
    new = [p for name, p in grown.named_parameters() if "relative" in name or name.endswith("norm.weight")]
    assert all(p.grad.abs().sum() > 0 for p in new)


def test_relative_features_tell_apart_what_only_their_spread_tells_apart():
    layer = Relative(2)
    torch.nn.init.normal_(layer.fc.weight)
    torch.manual_seed(0)
    calm = torch.randn(1, 2, 8, 8)
    with torch.no_grad():
        one, other = layer(calm), layer(3 * calm)
    assert not torch.allclose(3 * one, other, atol=1e-2)


def test_the_map_follows_the_evidence_and_is_not_flat():
    with torch.no_grad():
        latent = encoder()(pictures())
    assert (latent.attention_map.std((1, 2)) > 0.01 * latent.a_fake).all()


def test_weighted_form_is_a_plain_sum_over_units_weighted_by_their_activation():
    model = encoder(attention="abs", pool="mean")
    with torch.no_grad():
        latent, f = model(pictures()), model.features(pictures())
        units = nnf.conv2d(f, model.fc.weight[64:, :, None, None])  # M_c, (B, |F|, h, w)
    expected = (latent.z[:, 64:].abs()[:, :, None, None] * units).mean(1)
    torch.testing.assert_close(latent.attention_map, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [LAEConfig(), LAEConfig.paper(), dataclasses.replace(LAEConfig(), patch=2, widths=(16, 32, 64, 160))],
    ids=["default", "paper", "patch of 2"],
)
def test_shapes(config):
    torch.manual_seed(0)
    model = LAE(config).eval()
    with torch.no_grad():
        latent, reconstruction = model(pictures(2, 256))
        features = model.encoder.features(pictures(2, 256))
    assert features.shape == (2, config.widths[-1], 16, 16)
    assert latent.z.shape == (2, 128)
    assert latent.attention_map.shape == (2, 16, 16)
    assert latent.a_real.shape == latent.a_fake.shape == latent.score.shape == (2,)
    assert reconstruction.shape == (2, 3, 256, 256)


def test_score_is_fake_minus_real_activation():
    with torch.no_grad():
        latent = encoder()(pictures())
    torch.testing.assert_close(latent.a_real, latent.z[:, :64].abs().mean(1))
    torch.testing.assert_close(latent.a_fake, latent.z[:, 64:].abs().mean(1))
    assert torch.equal(latent.score, latent.a_fake - latent.a_real)


def test_the_fc_has_no_bias_for_else_the_map_would_not_add_up():
    assert encoder().fc.bias is None


def test_dead_units_give_an_empty_map_not_nan():
    model = encoder()
    with torch.no_grad():
        model.fc.weight.copy_(-model.fc.weight.abs())  # features are >= 0, so relu kills every unit
        latent = model(pictures())
    assert (latent.z == 0).all()
    assert (latent.attention_map == 0).all()


def test_a_black_picture_is_scored_with_numbers():
    with torch.no_grad():
        latent = encoder()(torch.zeros(1, 3, 64, 64))
    assert all(torch.isfinite(value).all() for value in latent)


def test_gate_weights_features_without_changing_their_total_weight():
    model = encoder(pool="gated")
    with torch.no_grad():
        model.gate.weight.zero_()  # every place alike: gated pooling is then mean pooling
        gated = model(pictures())
        model.gate = None
        plain = model(pictures())
    torch.testing.assert_close(gated.z, plain.z)


def test_encoding_needs_no_decoder():
    whole = LAE(LAEConfig()).eval()
    alone = Encoder(LAEConfig()).eval()
    alone.load_state_dict(whole.encoder.state_dict())
    with torch.no_grad():
        assert torch.equal(alone(pictures(1, 256)).z, whole.encoder(pictures(1, 256)).z)
    assert not any(isinstance(module, Decoder) for module in alone.modules())


def test_upsampled_map_has_the_size_of_the_picture():
    with torch.no_grad():
        latent = encoder()(pictures())
    grown = nnf.interpolate(latent.attention_map[:, None], size=64, mode="bilinear")
    assert grown.shape[2:] == pictures().shape[2:]


def test_reconstruction_is_a_picture():
    torch.manual_seed(0)
    with torch.no_grad():
        made = Decoder(LAEConfig()).eval()(10 * torch.randn(2, 128))
    assert made.min() >= 0
    assert made.max() <= 1


def test_highpass_stem_starts_blind_to_flat_colour():
    stem = encoder(highpass_stem=True).stages[0].conv.weight
    colour = stem.unflatten(1, (3, -1)).sum((2, 3, 4))  # what each filter answers to a flat picture, per colour
    assert colour[2:].abs().max() < 1e-5
    assert colour[:2].abs().max() > 1e-3


def test_attention_trains_the_first_convolution_and_the_latent_but_not_the_decoder():
    torch.manual_seed(0)
    model = LAE(LAEConfig())
    model.encoder(pictures(2, 256)).attention_map.square().mean().backward()
    assert model.encoder.stages[0].conv.weight.grad.abs().sum() > 0
    assert model.encoder.fc.weight.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in model.decoder.parameters())


@pytest.mark.parametrize("size", [64, 128, 256])
def test_what_is_reconstructed_has_the_size_of_what_went_in(size):
    with torch.inference_mode():
        _, shown = LAE(LAEConfig(size=size, patch=4, widths=(4, 4, 4), latent=8)).eval()(torch.rand(1, 3, size, size))
    assert shown.shape == (1, 3, size, size)
