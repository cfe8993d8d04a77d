"""An engine is used only where every field of its manifest fits; else it is told which one does not."""

import msgspec
import pytest

from trt_engines import machine
from trt_engines.machine import this_machine
from trt_engines.manifest import Guard, Machine, Manifest, Profile, Timing, Wanted, misfits

HERE = Machine(device="NVIDIA L4", capability="8.9", driver="580.95.05", versions={"torch": "2.13.0", "cuda": "13.0"})
MANIFEST = Manifest(
    model_id="0123456789abcdef",
    sha256="0" * 64,
    size_bytes=1,
    flavour="exported",
    precision="fp16",
    profile=Profile(1, 64, 256),
    machine=HERE,
    guard=Guard(crops=4, worst_score=1e-3, worst_raw=1e-3, auc_loss=None),
    timings=(Timing(batch=1, p50_ms=1.0, p99_ms=2.0, crops_per_s=1000.0),),
    export_s=1.0,
    build_s=1.0,
    load_s=1.0,
    built_at="2026-11-23T19:00:00+00:00",
)
WANTED = Wanted(model_id=MANIFEST.model_id)


def test_what_was_built_here_fits():
    assert misfits(MANIFEST, WANTED, HERE) == []
    assert (
        misfits(MANIFEST, Wanted(model_id=WANTED.model_id, precision="fp16", profile=Profile(1, 64, 256)), HERE) == []
    )


@pytest.mark.parametrize(
    ("wanted", "here", "words"),
    [
        ({"model_id": "f" * 16}, {}, "model: built for 0123456789abcdef, here is ffffffffffffffff"),
        ({"precision": "int8"}, {}, "precision: built for fp16, here is int8"),
        ({"profile": Profile(1, 8, 64)}, {}, "profile: built for 1:64:256, here is 1:8:64"),
        ({}, {"device": "NVIDIA H100"}, "device: built for NVIDIA L4, here is NVIDIA H100"),
        ({}, {"capability": "9.0"}, "compute capability: built for 8.9, here is 9.0"),
        ({}, {"driver": "590.1"}, "driver: built for 580.95.05, here is 590.1"),
        ({}, {"versions": {"torch": "2.14.0", "cuda": "13.0"}}, "torch: built for 2.13.0, here is 2.14.0"),
        ({}, {"versions": {"torch": "2.13.0"}}, "cuda: built for 13.0, here is none"),
        (
            {},
            {"versions": {"torch": "2.13.0", "cuda": "13.0", "tensorrt": "11.0"}},
            "tensorrt: built for none, here is 11.0",
        ),
    ],
)
def test_each_field_that_does_not_fit_is_named(wanted, here, words):
    looked_for = msgspec.structs.replace(WANTED, **wanted)
    assert misfits(MANIFEST, looked_for, msgspec.structs.replace(HERE, **here)) == [words]


def test_a_manifest_comes_back_as_it_was_written():
    assert msgspec.json.decode(msgspec.json.encode(MANIFEST), type=Manifest) == MANIFEST


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "laescan-engine-0"},
        {"sha256": "short"},
        {"model_id": "../../etc"},
        {"size_bytes": 0},
        {"precision": "fp4"},
        {"profile": {"least": 8, "best": 4, "most": 16}},
        {"surprise": 1},
        {"machine": None},
    ],
)
def test_a_manifest_that_is_off_is_refused(changes):
    written = {**msgspec.to_builtins(MANIFEST), **changes}
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(msgspec.json.encode(written), type=Manifest)


def test_a_profile_reads_as_it_is_written():
    assert Profile.parse("1:64:256") == Profile(1, 64, 256)
    assert str(Profile.parse("1:64:256")) == "1:64:256"


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:3:4", "4:2:8", "1:8:4", "0:1:2", "1:1:5000", "a:b:c", "-1:2:3"])
def test_a_profile_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"profile|Expected"):
        Profile.parse(text)


def test_this_machine_names_its_processor_and_what_its_code_was_made_for():
    here = this_machine({"compiler": "1"}, "cpu")
    assert here.device.count(",") >= 1
    assert here.versions.keys() == {"torch", "cuda", "compiler"}
    assert here == msgspec.json.decode(msgspec.json.encode(here), type=Machine)


@pytest.mark.parametrize(
    ("text", "driver"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19", "535.104.05"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05  Release Build\nGCC 13.3.0", "580.95.05"),
        ("something else", "unknown"),
        (None, "unknown"),
    ],
)
def test_the_driver_is_what_its_kernel_module_says(text, driver, tmp_path, monkeypatch):
    path = tmp_path / "version"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(machine, "_DRIVER", path)
    assert machine._driver() == driver
