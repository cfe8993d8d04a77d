"""The doctor tries things and tells the truth about them, good or bad."""

import asyncio
import os

import models
import msgspec
import pytest
import torch

from scanner import doctor
from scanner.cli import main
from scanner.detection.checkpoint import load_checkpoint, save_checkpoint
from scanner.doctor import Diagnosis, examine, setting_meanings, settings_in_force
from scanner.errors import Unreachable
from scanner.receipts import Signer, key_id, public_key
from scanner.settings import Settings


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return models.random_checkpoint(tmp_path_factory.mktemp("weights"))


@pytest.fixture(autouse=True)
def environ(weights, monkeypatch):
    threads = torch.get_num_threads()
    monkeypatch.setenv("LAESCAN_WEIGHTS", str(weights))
    monkeypatch.setenv("LAESCAN_THREADS", "1")
    yield
    torch.set_num_threads(threads)


def checks(**changes):
    return {check.name: check for check in examine({**os.environ, **changes}).checks}


def test_a_healthy_machine_passes_every_check(capsys):
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert "FAIL" not in shown
    assert "all is well" in shown
    for words in ("torch", "cpu", "1 compute threads", "4 crops scored", "connect to loopback: stopped", "not reached"):
        assert words in shown


def test_json_says_the_same(capsys):
    assert main(["doctor", "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out, type=Diagnosis)
    assert found.ok
    names = {
        "settings",
        "versions",
        "weights",
        "backend",
        "engines",
        "golden scores",
        "face detector",
        "engine",
        "jail",
        "video pages",
        "state",
        "receipts",
        "egress",
    }
    assert {check.name for check in found.checks} == names


def test_with_regions_on_their_weights_are_tried_too(weights, tmp_path):
    found = checks(LAESCAN_REGIONS="true", LAESCAN_REGION_WEIGHTS=str(weights))
    assert found["weights for whole pictures"].ok
    assert found["golden scores for whole pictures"].ok
    found = checks(LAESCAN_REGIONS="true", LAESCAN_REGION_WEIGHTS=str(tmp_path / "none"))
    assert "bad_weights" in found["weights for whole pictures"].words[0]


def test_missing_weights_fail_and_the_rest_is_still_tried(capsys, monkeypatch):
    monkeypatch.setenv("LAESCAN_WEIGHTS", "nowhere.safetensors")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL weights: bad_weights" in shown
    assert "ok   egress" in shown
    assert "something is wrong" in shown


def test_bad_settings_fail_but_their_list_is_shown(capsys, monkeypatch):
    monkeypatch.setenv("LAESCAN_TYPO", "1")
    monkeypatch.delenv("LAESCAN_WEIGHTS")
    assert main(["doctor"]) == 1
    shown = capsys.readouterr().out
    assert "FAIL settings: unknown setting LAESCAN_TYPO" in shown
    assert "LAESCAN_MAX_FRAMES=16" in shown


def test_weights_that_compute_something_else_are_found(tmp_path, weights):
    made = load_checkpoint(weights)
    path = tmp_path / "other.safetensors"
    save_checkpoint(path, made.encoder, made.calibration, made.card)
    other = msgspec.structs.replace(Settings(), weights=str(path), threads=1)
    detector = doctor.Detector.load(other)
    assert doctor._golden(detector).ok
    with torch.no_grad():  # a broken build of torch, seen from here
        detector._encoder.fc.weight += 0.1 * torch.randn_like(detector._encoder.fc.weight)
    check = doctor._golden(detector)
    assert not check.ok
    assert "tolerance" in check.words[0]


def test_a_checkpoint_without_golden_scores_is_not_trusted(weights):
    detector = doctor.Detector.load(Settings(weights=str(weights), threads=1))
    del detector.checkpoint.card["golden"]
    assert not doctor._golden(detector).ok


def test_an_egress_check_that_lets_through_is_found(monkeypatch):
    async def fetch_anything(source, **_):
        host, port = source.removeprefix("http://").partition("/")[0].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        await reader.read()
        writer.close()
        raise Unreachable

    monkeypatch.setattr(doctor, "fetch", fetch_anything)
    assert not checks()["egress"].ok


def test_spinning_threads_are_mentioned(monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    assert any("spin" in words for words in checks()["backend"].words)


def test_opened_networks_are_mentioned_and_do_not_blind_the_canary():
    egress = checks(LAESCAN_ALLOW_NETWORKS="127.0.0.0/8")["egress"]
    assert egress.ok
    assert "127.0.0.0/8" in egress.words[1]


def test_who_signs_receipts_is_told_and_a_key_that_cannot_is_a_fault(tmp_path):
    key = tmp_path / "receipt.key"
    settings = Settings(receipt_key=str(key))
    check = doctor._receipts(settings)
    assert (check.ok, key.exists()) == (True, False), "looking makes none"
    assert "no key yet" in check.words[0]
    pem = Signer(settings).public_pem()
    assert f"signed by key {key_id(public_key(pem))}" in doctor._receipts(settings).words[0]
    key.write_bytes(b"broken")
    check = doctor._receipts(settings)
    assert not check.ok
    assert "LAESCAN_RECEIPT_KEY" in check.words[0]


def test_every_setting_is_listed_with_its_meaning():
    settings = settings_in_force(Settings(max_frames=32))
    assert [s.variable for s in settings] == [f"LAESCAN_{name.upper()}" for name in Settings.__struct_fields__]
    assert all(s.meaning for s in settings)
    assert [s.variable for s in settings if not s.is_default] == ["LAESCAN_MAX_FRAMES"]
    assert set(setting_meanings()) == set(Settings.__struct_fields__)


def test_passwords_in_urls_are_not_told():
    given = Settings(redis_url="redis://:hunter2@there:6379/0", egress_proxy="http://laescan:hunter2@door:3128")
    told = {setting.variable: setting.value for setting in settings_in_force(given)}
    assert told["LAESCAN_REDIS_URL"] == "redis://:***@there:6379/0"
    assert told["LAESCAN_EGRESS_PROXY"] == "http://laescan:***@door:3128"
    assert "hunter2" not in str(told)
