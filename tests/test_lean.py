"""The CPU's form of the encoder says what the plain one says, whatever its shape; and it leaves nothing behind."""

import models
import numpy as np
import pytest
import torch

from scanner.detection import detector, lean
from scanner.detection.checkpoint import SHIPPED, golden_crops, load_checkpoint
from scanner.detection.detector import Backend, Detector
from scanner.detection.folded import Folded
from scanner.detection.lae import Encoder, LAEConfig
from scanner.detection.lean import Lean, moments
from scanner.detection.winograd import Winograd

CPU = Backend("cpu", "fp32", "test")
CONFIGS = {
    "context, relative, blocks": LAEConfig(size=64, relative=True, blocks=2),
    "no context": LAEConfig(size=64, relative=True, context=False),
    "no relative": LAEConfig(size=64, blocks=1),
    "neither": LAEConfig(size=64, context=False),
    "patches of 1": LAEConfig(size=64, patch=1, relative=True),
    "patches of 4": LAEConfig(size=64, patch=4, relative=True, blocks=1),
    "all of it late": LAEConfig(size=64, widths=(8, 16), relative=True),
}
pytestmark = pytest.mark.skipif(not lean.is_possible(), reason="this build of torch cannot; Folded runs instead")


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def crops(size):
    """Corners of the golden crops, a flat one, and one of noise."""
    noise = np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)
    return torch.from_numpy(np.concatenate([golden_crops()[:, :size, :size], np.full_like(noise, 131), noise]))


def encoder(config):
    """One whose every part does something, though fresh ones have zeros where `Relative` and `Block` begin."""
    torch.manual_seed(0)
    return models.with_statistics(Encoder(config), crops(config.size))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_shape_of_network_gives_the_plain_ones_features_scores_and_maps(config):
    made, x = encoder(config), crops(config.size)
    with torch.inference_mode():
        ours, plain = Lean(made, torch.float32)(x), made(x.permute(0, 3, 1, 2).float() / 255)
    for name, one, other in zip(plain._fields, ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("count", [1, 3, 5])  # the last as `Winograd`, and held to crops that came alone
@pytest.mark.parametrize("at_once", [1, 2])
def test_neighbours_in_a_batch_and_threads_change_nothing(count, at_once):
    made, x = encoder(CONFIGS["context, relative, blocks"]), crops(64)
    torch.set_num_threads(at_once)
    form = Lean(made, torch.float32)
    with torch.inference_mode():
        together, alone = form.features(x[:count]), torch.cat([form.features(one[None]) for one in x[:count]])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_many_crops_move_no_score_of_the_shipped_network_by_more_than_one_millionth():
    made = load_checkpoint(SHIPPED).encoder
    x = torch.from_numpy(golden_crops())
    form = Lean(made, torch.float32)
    assert any(isinstance(step.conv, Winograd) for step in form._late_of_many)
    assert len(x) >= lean.MANY
    with torch.inference_mode():
        ours, folded = form(x), Folded(made, torch.float32)(x)
    torch.testing.assert_close(ours.score, folded.score, rtol=0, atol=1e-6)
    torch.testing.assert_close(ours.attention_map, folded.attention_map, rtol=1e-4, atol=1e-4)


def test_half_precision_is_as_near_to_full_precision_as_the_folded_form():
    made, x = encoder(CONFIGS["context, relative, blocks"]), crops(64)
    with torch.inference_mode():
        plain = Folded(made, torch.float32)(x).score
        ours, folded = ((form(made, torch.bfloat16)(x).score - plain).abs().max() for form in (Lean, Folded))
    assert ours < 2 * folded + 1e-3


@pytest.mark.parametrize("shape", [(16, 64, 64), (8, 3, 5), (64, 32, 32)], ids=["abreast", "does not divide", "wide"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_moments_are_full_precision_ones_even_far_from_zero(dtype, shape):
    torch.manual_seed(0)
    x = (torch.randn(1, *shape) * 0.1 + 20).to(dtype).contiguous(memory_format=torch.channels_last)
    mean, deviation = moments(x)
    expected, middle = torch.std_mean(x.double(), (0, 2, 3), correction=0)
    assert mean.dtype == deviation.dtype == torch.float32
    torch.testing.assert_close(mean.double(), middle, rtol=1e-5, atol=0)
    torch.testing.assert_close(deviation.double(), expected, rtol=1e-3, atol=0)


def test_a_crop_that_is_not_a_number_spoils_no_later_one():
    made, x = encoder(CONFIGS["context, relative, blocks"]), crops(64)
    form = Lean(made, torch.bfloat16)
    with torch.inference_mode():
        before = form.features(x)
        moments(
            torch.full((1, 16, 8, 8), torch.nan, dtype=torch.bfloat16).contiguous(memory_format=torch.channels_last)
        )
        assert torch.equal(form.features(x), before)


def test_a_torch_that_cannot_pack_gets_the_folded_form(monkeypatch, tmp_path):
    made = load_checkpoint(models.random_checkpoint(tmp_path))
    lean_scores = Detector(made, CPU).score(golden_crops())
    monkeypatch.setattr(detector.lean, "is_possible", lambda: False)
    plain = Detector(made, CPU)
    assert type(plain.plain_run.encoder) is Folded
    np.testing.assert_allclose(plain.score(golden_crops()).raw, lean_scores.raw, rtol=0, atol=1e-5)
