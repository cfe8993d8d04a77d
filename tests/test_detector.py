"""Fast inference says what the plain network says; weights that are not ours are refused."""

import dataclasses
import hashlib
import json

import models
import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from scanner.detection import checkpoint
from scanner.detection.checkpoint import golden_crops, load_checkpoint, save_checkpoint
from scanner.detection.detector import MICRO_BATCH, Backend, Detector, choose_backend, use_threads
from scanner.detection.folded import Folded, Scorer, space_to_depth
from scanner.detection.lae import LAEConfig
from scanner.errors import BadWeights
from scanner.settings import Settings

CPU = Backend("cpu", "fp32", "test")
BACKENDS = [CPU, Backend("cpu", "bf16", "emulated where not native")]
if torch.cuda.is_available():
    BACKENDS.append(choose_backend())


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return models.random_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True, scope="module")
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def crops(count, size=256):
    return np.random.default_rng(0).integers(0, 256, (count, size, size, 3), dtype=np.uint8)


def eager(encoder, pixels):
    with torch.no_grad():
        return encoder(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255)


# ---------------------------------------------------------------- the same scores, faster


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: f"{backend.device} {backend.precision}")
@pytest.mark.parametrize(
    "config",
    [LAEConfig(), LAEConfig(relative=True, blocks=1), LAEConfig.paper()],
    ids=["default", "relative", "paper"],
)
def test_scores_are_those_of_the_eager_fp32_network(tmp_path, config, backend):
    made = load_checkpoint(models.random_checkpoint(tmp_path, config=config))
    pixels = np.concatenate([golden_crops(), golden_crops()[:2, ::-1]])
    scores, expected = Detector(made, backend).score(pixels), eager(made.encoder, pixels)
    assert np.ptp(scores.raw) > 0.1, "scores that are all alike would prove nothing"
    assert np.abs(scores.raw - expected.score.numpy()).max() < (1e-4 if backend.precision == "fp32" else 1e-2)
    limit = (1e-4 if backend.precision == "fp32" else 3e-2) * expected.attention_map.max().item()
    assert np.abs(scores.attention - expected.attention_map.numpy()).max() < limit


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: f"{backend.device} {backend.precision}")
def test_mean_of_each_map_is_the_fake_activation(tiny, backend):
    made = load_checkpoint(tiny)
    detector = Detector(made, backend)
    with torch.no_grad():
        a_fake = detector._encoder(torch.from_numpy(crops(3)).to(backend.device)).a_fake.cpu().numpy()
    np.testing.assert_allclose(detector.score(crops(3)).attention.mean((1, 2)), a_fake, rtol=1e-5)


def test_batching_does_not_change_a_score(tiny):
    detector = Detector(load_checkpoint(tiny), CPU)
    pixels = crops(2 * MICRO_BATCH["cpu"] + 1)
    together = detector.score(pixels)
    alone = np.concatenate([detector.score(one[None]).raw for one in pixels])
    np.testing.assert_allclose(together.raw, alone, atol=1e-5)
    assert together.raw.dtype == together.attention.dtype == np.float32


def test_no_crops_no_scores(tiny):
    scores = Detector(load_checkpoint(tiny), CPU).score(crops(0))
    assert scores.raw.shape == (0,)
    assert scores.attention.shape == (0, 16, 16)


@pytest.mark.parametrize("pixels", [crops(1, 128), crops(1)[0], crops(1).astype(np.float32)])
def test_anything_but_crops_is_refused(tiny, pixels):
    with pytest.raises(ValueError, match="crops must be"):
        Detector(load_checkpoint(tiny), CPU).score(pixels)


def test_a_view_of_crops_is_scored_like_its_copy(tiny):
    detector = Detector(load_checkpoint(tiny), CPU)
    mirrored = crops(2)[:, :, ::-1]
    assert np.array_equal(detector.score(mirrored).raw, detector.score(mirrored.copy()).raw)


def test_folding_leaves_the_original_alone():
    encoder = models.random_encoder()
    before = eager(encoder, crops(1)).z
    Folded(encoder, torch.bfloat16)
    assert torch.equal(eager(encoder, crops(1)).z, before)


def test_folding_draws_no_random_numbers():
    encoder = models.random_encoder()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Folded(encoder, torch.float32)
    assert torch.equal(torch.rand(3), expected)


def test_casting_first_or_last_changes_nothing_and_the_probability_is_the_calibrated_one():
    encoder, x = models.random_encoder(), torch.from_numpy(crops(2))
    first, last = (
        Scorer(Folded(encoder, torch.float32), models.SURELY_AUTHENTIC, cast_first=flag)(x) for flag in (True, False)
    )
    assert all(torch.equal(a, b) for a, b in zip(first, last, strict=True))
    raw, _, probability = first
    expected = [1 / (1 + np.exp(9.0 - 2.0 * one)) for one in raw.tolist()]
    np.testing.assert_allclose(probability, expected, rtol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_space_to_depth_is_pixel_unshuffle_in_another_order(patch):
    x = torch.from_numpy(crops(2, 8))
    ours = space_to_depth(x, patch).permute(0, 3, 1, 2).unflatten(1, (patch * patch, 3)).transpose(1, 2).flatten(1, 2)
    assert torch.equal(ours, torch.nn.functional.pixel_unshuffle(x.permute(0, 3, 1, 2), patch))


# ---------------------------------------------------------------- the backend


@pytest.mark.parametrize(
    ("features", "has_cuda", "chosen"),
    [
        ({"avx512_f": True, "avx512_bf16": False}, False, ("cpu", "fp32")),
        ({"avx512_f": True, "avx512_bf16": True}, False, ("cpu", "bf16")),
        ({"amx_bf16": True}, False, ("cpu", "bf16")),
        ({}, False, ("cpu", "fp32")),
        ({}, True, ("cuda", "fp16")),
    ],
)
def test_bf16_only_where_it_is_native_and_the_gpu_first(features, has_cuda, chosen):
    backend = choose_backend(features, has_cuda=has_cuda)
    assert (backend.device, backend.precision) == chosen
    assert backend.why


def test_this_machine_gets_a_backend_that_runs(tiny):
    detector = Detector.load(Settings(weights=str(tiny), threads=1))
    assert np.isfinite(detector.score(crops(1)).raw).all()
    assert (detector.info.backend, detector.info.precision) == (detector.backend.device, detector.backend.precision)


def test_threads_follow_the_settings():
    assert use_threads(1) == 1
    assert use_threads(0) >= 1


# ---------------------------------------------------------------- the checkpoint


def test_checkpoint_comes_back_as_it_was_saved(tmp_path):
    encoder = models.random_encoder()
    save_checkpoint(tmp_path / "a.safetensors", encoder, models.CALIBRATION, {"name": "a"})
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert loaded.calibration == models.CALIBRATION
    assert loaded.card["name"] == "a"
    assert loaded.is_listed
    assert torch.equal(eager(loaded.encoder, crops(1)).z, eager(encoder, crops(1)).z)
    assert not loaded.encoder.training


def test_golden_scores_travel_with_the_weights(tiny):
    golden = load_checkpoint(tiny).card["golden"]
    np.testing.assert_allclose(Detector(load_checkpoint(tiny), CPU).score(golden_crops()).raw, golden, atol=1e-4)
    assert len(set(golden)) == 4


def test_golden_crops_never_change():
    digest = hashlib.sha256(golden_crops().tobytes()).hexdigest()
    assert digest.startswith("3a3efe63a5a0"), "stored golden scores would all be wrong"


def test_model_id_binds_weights_calibration_and_crop_but_not_the_card(tmp_path, monkeypatch):
    encoder, calibration = models.random_encoder(), models.CALIBRATION

    def model_id(*, encoder=encoder, calibration=calibration, card=None):
        save_checkpoint(tmp_path / "a.safetensors", encoder, calibration, card or {})
        return load_checkpoint(tmp_path / "a.safetensors").model_id

    first = model_id()
    assert len(first) == 16
    assert model_id(card={"note": "measured again"}) == first
    stricter = type(calibration)(slope=8.0, intercept=0.0, authentic=0.3, manipulated=0.9)
    others = {model_id(encoder=models.random_encoder(seed=1)), model_id(calibration=stricter)}
    monkeypatch.setattr(checkpoint, "PREPROCESSING", "crop-2")
    assert len(others | {first, model_id()}) == 4


def test_missing_checkpoint_says_what_to_do(tmp_path):
    with pytest.raises(BadWeights, match="LAESCAN_WEIGHTS"):
        Detector.load(Settings(weights=str(tmp_path / "none.safetensors"), threads=1))


def test_one_altered_bit_is_found(tmp_path):
    path = models.random_checkpoint(tmp_path)
    altered = bytearray(path.read_bytes())
    altered[-1] ^= 1
    path.write_bytes(altered)
    with pytest.raises(BadWeights, match="altered"):
        load_checkpoint(path)


@pytest.mark.parametrize("content", [b"", b"not weights", b"\xff" * 64])
def test_a_file_that_holds_no_weights_is_refused(tmp_path, content):
    path = tmp_path / "any.safetensors"
    path.write_bytes(content)
    with pytest.raises(BadWeights, match="damaged"):
        load_checkpoint(path)


def test_the_shipped_checkpoint_must_be_listed(tmp_path, monkeypatch):
    path = models.random_checkpoint(tmp_path)
    (tmp_path / "SHA256SUMS").unlink()
    assert not load_checkpoint(path).is_listed  # anybody's own
    monkeypatch.setattr(checkpoint, "SHIPPED", path)
    with pytest.raises(BadWeights, match="digest"):
        load_checkpoint(path)


def rewritten(path, **changes):
    """The checkpoint with other metadata (None: without), not listed."""
    with safe_open(path, framework="pt") as opened:
        metadata = {**opened.metadata(), **changes}
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    other = path.with_name("other.safetensors")
    save_file(tensors, other, metadata={name: text for name, text in metadata.items() if text is not None})
    return other


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "laescan-encoder-0"}, "not a checkpoint of this version"),
        ({"calibration": None}, "calibration"),
        ({"calibration": '{"slope":-1,"intercept":0,"authentic":0.2,"manipulated":0.8}'}, "slope"),
        ({"config": json.dumps({**dataclasses.asdict(LAEConfig()), "future": 1})}, "unknown field future"),
        ({"config": json.dumps({**dataclasses.asdict(LAEConfig()), "latent": 64})}, "size mismatch"),
        ({"config": json.dumps({**dataclasses.asdict(LAEConfig()), "pool": "max"})}, "Invalid enum value"),
        ({"card": "{"}, "does not fit"),
    ],
)
def test_another_version_is_refused_and_named(tiny, changes, words):
    with pytest.raises(BadWeights, match=words):
        load_checkpoint(rewritten(tiny, **changes))
