"""An engine gets into the store by its guards, out of it by its fit, and takes over between two batches.

The flavour is what torch runs by itself ("exported"): everything but NVIDIA's compilers is as on a GPU.
"""

import sys
from pathlib import Path

import cv2
import models
import msgspec
import networks
import numpy as np
import pytest
import torch

from scanner.cli import main
from scanner.commands.exits import Exit
from scanner.contract import ModelInfo
from scanner.detection import engines
from scanner.detection.checkpoint import load_checkpoint
from scanner.detection.detector import Backend, Detector
from scanner.detection.engines import Builder, Crops, attach, guard_crops, report
from scanner.settings import Settings
from trt_engines import bench
from trt_engines import build as building
from trt_engines.build import Wish, auc, build, held
from trt_engines.errors import BuildFailed, NoCompiler, Unfit
from trt_engines.flavours import Exported, Graph, flavours
from trt_engines.load import Loaded, find, load, state
from trt_engines.manifest import Guard, Manifest, Profile, Wanted
from trt_engines.store import Store

WISH = Wish("fp32", networks.PROFILE, "cpu", guard_sizes=(1, 3), time_budget_s=0.01)
WANTED = Wanted(model_id=networks.MODEL_ID)
HERE = {"exported": Exported()}
CPU = Backend("cpu", "fp32", "test")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """With one engine of the tiny network."""
    made = Store(tmp_path_factory.mktemp("state") / "engines")
    with made.locked():
        build(networks.network(), WISH, Exported(), made)
    return made


def about(store):
    return store.entries()[0].manifest


def test_an_engine_says_what_the_network_says_and_its_manifest_tells_all(store):
    loaded, reasons = find(store, WANTED, HERE, "cpu")
    assert reasons == []
    with torch.no_grad():
        for ours, theirs in zip(loaded.run(networks.crops()), networks.module()(networks.crops()), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=0)
    manifest = loaded.manifest
    assert (manifest.flavour, manifest.precision, manifest.profile) == ("exported", "fp32", networks.PROFILE)
    assert manifest.guard == Guard(crops=8, worst_score=0.0, worst_raw=0.0, auc_loss=None)
    assert [timing.batch for timing in manifest.timings] == [1, 4]
    assert all(0 < timing.p50_ms <= timing.p99_ms for timing in manifest.timings)
    assert store.entries()[0].path.with_suffix(".onnx").stat().st_size > 1000


def test_what_does_not_fit_is_passed_over_with_a_reason(store):
    other = Wanted(model_id="f" * 16)
    loaded, (reason,) = find(store, other, HERE, "cpu")
    assert loaded is None
    assert "does not fit: model: built for" in reason
    with pytest.raises(Unfit, match="does not fit"):
        load(store, store.entries()[0], other, HERE, "cpu")
    assert state(store, store.entries()[0], WANTED, HERE, "cpu") == "fits"


def test_a_flavour_that_is_not_here_is_passed_over(store):
    loaded, (reason,) = find(store, WANTED, {}, "cpu")
    assert loaded is None
    assert "flavour" in reason


def test_the_fastest_that_fits_is_taken_and_a_tampered_one_never(store, tmp_path):
    copy = Store(tmp_path / "engines")
    entry = store.entries()[0]
    code = entry.engine.read_bytes()
    for name, rate, content in (("slow", 1.0, code), ("fast", 1e9, code), ("fastest", 1e12, code + b"!")):
        timing = msgspec.structs.replace(about(store).timings[0], crops_per_s=rate)
        manifest = msgspec.structs.replace(about(store), timings=(timing,))
        for suffix, data in ((".engine", content), (".json", msgspec.json.encode(manifest))):
            path = copy.folder / f"{name}{suffix}"
            path.write_bytes(data)
            path.chmod(0o600)
    loaded, (reason,) = find(copy, WANTED, HERE, "cpu")
    assert loaded.manifest.timings[0].crops_per_s == 1e9
    assert reason.startswith("fastest.engine is longer")


# ---------------------------------------------------------------- the guard


def moved(by):
    def run(crops):
        raw, attention, probability = networks.module()(crops)
        return raw, attention, probability + by

    return run


def test_an_engine_that_moves_scores_too_far_is_not_taken():
    assert held(networks.network(), moved(0.019), WISH).worst_score == pytest.approx(0.019, abs=1e-5)
    with pytest.raises(BuildFailed, match=r"a score moves by 0\.021 \(limit 0\.02\); it is not taken"):
        held(networks.network(), moved(0.021), WISH)
    with pytest.raises(BuildFailed, match="no number"):
        held(networks.network(), moved(float("nan")), WISH)


def test_an_engine_that_orders_them_otherwise_is_not_taken():
    with torch.no_grad():
        scores = networks.module()(networks.crops())[2]
    forged = (scores > scores.median()).numpy()

    def inverted(crops):
        raw, attention, probability = networks.module()(crops)
        return raw, attention, 1 - probability

    network = networks.network(forged=forged)
    assert held(network, networks.module(), WISH).auc_loss == 0.0
    with pytest.raises(BuildFailed, match=r"the AUC falls by 1\.0000"):
        held(network, inverted, Wish("fp32", networks.PROFILE, "cpu", limits=(1.0, 0.002)))


def test_an_engine_is_timed_in_batches_that_it_takes():
    assert bench.sizes_of(Profile(1, 4, 8)) == (1, 4)
    assert bench.sizes_of(Profile(1, 64, 256)) == (1, 16, 64, 256)
    (timing,) = bench.timings(networks.module(), networks.crops(3), [8], budget_s=0.0)
    assert timing.batch == 8  # crops repeat until it is full


def test_auc_counts_ties_half():
    scores, forged = np.array([0.1, 0.5, 0.5, 0.9]), np.array([False, False, True, True])
    assert auc(scores, forged) == pytest.approx(3.5 / 4)


@pytest.mark.parametrize(
    ("wish", "flavour", "error", "words"),
    [
        (WISH, "torch-tensorrt", NoCompiler, "for NVIDIA GPUs"),
        (Wish("int8", networks.PROFILE, "cpu"), "exported", BuildFailed, "builds fp32, bf16, fp16 engines, not int8"),
        (Wish("int8", networks.PROFILE, "cuda"), "tensorrt-rtx", BuildFailed, "builds fp16, bf16, fp32, fp8 engines"),
        (Wish("fp8", networks.PROFILE, "cuda"), "tensorrt-rtx", BuildFailed, "at least 100 real and as many forged"),
    ],
)
def test_what_makes_no_sense_is_refused_before_it_begins(wish, flavour, error, words):
    with pytest.raises(error, match=words):
        building.check(networks.network(), wish, flavours()[flavour])


def test_a_build_that_fails_leaves_nothing_behind(tmp_path, monkeypatch):
    class Refusing(Exported):
        def build(self, _graph, path):
            path.write_bytes(b"half an engine")
            msg = "out of workspace"
            raise BuildFailed(msg)

    graph = Graph(networks.program(), None, networks.crops(3), networks.PROFILE)
    monkeypatch.setattr(building, "graph_of", lambda *_: graph)  # which takes the test's time
    made = Store(tmp_path / "engines")
    with made.locked(), pytest.raises(BuildFailed, match="workspace"):
        build(networks.network(), WISH, Refusing(), made)
    assert [file.name for file in made.folder.iterdir()] == [".lock"]


# ---------------------------------------------------------------- the detector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return load_checkpoint(models.random_checkpoint(tmp_path_factory.mktemp("weights")))


def loaded_from(run, most=256):
    manifest = msgspec.structs.replace(MANIFEST, profile=Profile(1, 1, most))
    return Loaded(run, manifest)


MANIFEST = msgspec.convert(
    {
        "model_id": networks.MODEL_ID,
        "sha256": "0" * 64,
        "size_bytes": 1,
        "flavour": "torch-tensorrt",
        "precision": "fp16",
        "profile": {"least": 1, "best": 1, "most": 256},
        "machine": {"device": "GPU", "capability": "8.9", "driver": "1", "versions": {}},
        "guard": {"crops": 1, "worst_score": 0.0, "worst_raw": 0.0, "auc_loss": None},
        "timings": [],
        "export_s": 0.0,
        "build_s": 0.0,
        "load_s": 0.0,
        "built_at": "now",
    },
    Manifest,
)


def test_an_adopted_engine_scores_in_batches_that_it_takes(checkpoint):
    detector, sizes = Detector(checkpoint, CPU), []

    def run(crops):
        sizes.append(len(crops))
        return detector.plain_run(crops)

    pixels = guard_crops()[:5]
    before = detector.score(pixels)
    detector.adopt(loaded_from(run, most=2))
    assert detector.info == ModelInfo(model_id=checkpoint.model_id, backend="torch-tensorrt", precision="fp16")
    np.testing.assert_allclose(detector.score(pixels).raw, before.raw, atol=1e-5)
    assert sizes == [2, 2, 1]


def test_an_engine_that_fails_gives_way_and_every_crop_is_scored(checkpoint):
    def broken(_crops):
        msg = "the engine refused a batch"
        raise RuntimeError(msg)

    detector = Detector(checkpoint, CPU)
    expected = detector.score(guard_crops()[:3]).raw
    detector.adopt(loaded_from(broken))
    np.testing.assert_allclose(detector.score(guard_crops()[:3]).raw, expected, atol=1e-5)
    assert detector.info == detector.plain_info


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_the_devices_trouble_is_not_the_engines(checkpoint, error):
    def run(crops):
        raise error(str(crops.device))

    detector = Detector(checkpoint, CPU)
    detector.adopt(loaded_from(run))
    with pytest.raises(error):
        detector.score(guard_crops()[:1])
    assert detector.info.backend == "torch-tensorrt"


def settings_of(store, **changes):
    return Settings(engines_folder=str(store.folder), threads=1, **changes)


class Tiny:
    """As much of a detector as `attach` and `Builder` ask of one."""

    def __init__(self):
        self.backend, self.adopted = CPU, []
        self.checkpoint = type("Checkpoint", (), {"model_id": networks.MODEL_ID})

    def adopt(self, loaded):
        self.adopted.append(loaded.manifest)


def test_on_a_cpu_engines_are_neither_looked_for_nor_built(store, checkpoint):
    detector = Detector(checkpoint, CPU)
    assert not attach(detector, settings_of(store))
    assert engines.builder([detector], settings_of(store)) is None
    ok, (words,) = report(detector, settings_of(store))
    assert ok
    assert "for NVIDIA GPUs" in words
    assert report(detector, settings_of(store, engines="off")) == (True, ("off by LAESCAN_ENGINES",))


def test_an_engine_that_fits_is_adopted_unless_engines_are_off(store):
    detector = Tiny()
    assert not attach(detector, settings_of(store, engines="off"), flavours_here=HERE)
    assert attach(detector, settings_of(store), flavours_here=HERE)
    assert detector.adopted == [about(store)]


def test_what_another_process_built_takes_over_by_itself(store, monkeypatch):
    monkeypatch.setattr(engines, "attach", lambda detector, settings: attach(detector, settings, flavours_here=HERE))
    detector = Tiny()
    builder = Builder([detector], settings_of(store), [sys.executable, "-c", ""])
    builder.start()
    builder._thread.join()
    assert detector.adopted == [about(store)]


def test_a_build_that_fails_or_is_ended_changes_nothing(store):
    for code, end in (("raise SystemExit(1)", False), ("input()", True)):
        detector = Tiny()
        builder = Builder([detector], settings_of(store), [sys.executable, "-c", code])
        builder.start()
        if end:
            builder.stop()
        builder._thread.join()
        assert detector.adopted == []


# ---------------------------------------------------------------- the crops, and the command


def test_guard_crops_are_64_of_their_own():
    crops = guard_crops()
    assert (crops.shape, crops.dtype) == ((64, 256, 256, 3), np.uint8)
    assert len({crop.tobytes() for crop in crops}) >= 60


def test_crops_are_read_from_two_folders_and_faces_are_cut_out(tmp_path):
    for name in ("real", "forged"):
        (tmp_path / name).mkdir()
    cv2.imwrite(str(tmp_path / "real" / "crop.png"), guard_crops()[0])
    portrait = Path(__file__).parent / "media" / "fellow_1.jpg"
    (tmp_path / "forged" / "portrait.jpg").write_bytes(portrait.read_bytes())
    (tmp_path / "forged" / "notes.txt").write_text("no picture")
    crops = Crops.read(tmp_path)
    assert crops.forged.tolist() == [False, True]
    assert np.array_equal(crops.pixels[0], guard_crops()[0][..., ::-1])  # cv2 writes BGR


def test_the_command_refuses_in_words_and_codes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAESCAN_WEIGHTS", str(models.random_checkpoint(tmp_path)))
    monkeypatch.setenv("LAESCAN_ENGINES_FOLDER", str(tmp_path / "engines"))
    monkeypatch.setenv("LAESCAN_THREADS", "1")
    cases = [
        (["build", "--batch", "2:4:8"], Exit.USAGE, "must begin at 1"),
        (["build", "--batch", "8"], Exit.USAGE, "as 1:64:256"),
        (["build", "--flavour", "gcc"], Exit.USAGE, "no gcc"),
        (["build", "--crops", str(tmp_path / "none")], Exit.USAGE, "none"),
        (["build", "--flavour", "exported", "--precision", "int8"], Exit.FAIL_ON, "not int8"),
    ]
    if not torch.cuda.is_available():
        cases.append((["build"], Exit.NO_ENGINE, "torch finds no NVIDIA GPU here"))
    for arguments, code, words in cases:
        assert main(["engines", *arguments]) == code
        assert words in capsys.readouterr().err


def test_the_command_lists_and_prunes(store, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LAESCAN_WEIGHTS", str(models.random_checkpoint(tmp_path)))
    monkeypatch.setenv("LAESCAN_ENGINES_FOLDER", str(store.folder))
    monkeypatch.setenv("LAESCAN_THREADS", "1")
    assert main(["engines", "list"]) == Exit.OK
    shown = capsys.readouterr().out
    assert "model: built for 0123456789abcdef, here is" in shown
    assert "compiler exported: here" in shown
    assert main(["engines", "list", "--json"]) == Exit.OK
    assert msgspec.json.decode(capsys.readouterr().out)["manifest"]["flavour"] == "exported"
    assert main(["engines", "prune"]) == Exit.OK  # last: it is of no model that is in use
    assert "0 engines kept" in capsys.readouterr().out
    assert store.entries() == []
