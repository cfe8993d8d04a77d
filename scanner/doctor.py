"""Settings in, a diagnosis out: whether everything is here that a scan needs, and whether the walls hold.

One reason: nothing is believed that can be tried. The jail's child tries to break out, the fetcher is pointed at a
canary on loopback, the model scores crops whose scores were stored when it was made.
"""

import ast
import asyncio
import inspect
import itertools
import os
import platform
import re
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import msgspec
import numpy as np
import torch

from scanner import settings as settings_module
from scanner.decoding.jail import Jail
from scanner.detection import engines
from scanner.detection.checkpoint import golden_crops
from scanner.detection.detector import Detector
from scanner.detection.faces import FaceDetector
from scanner.engine.client import status
from scanner.engine.wire import socket_path
from scanner.errors import BadWeights, BlockedAddress, NoEngine, ScanError
from scanner.fetching.fetch import fetch
from scanner.fetching.page_walls import try_walls
from scanner.folders import scratch_folder, state_path
from scanner.receipts import ReceiptError, Signer, key_id, public_key
from scanner.repair import Repair, exposed, stale_sockets
from scanner.settings import PREFIX, Settings, SettingsError

PACKAGES = ("laescan", "torch", "numpy", "opencv-python-headless", "pillow", "av", "aiohttp", "yt-dlp")
GOLDEN_TOLERANCE = 1e-2
"""How far a raw score of a golden crop may be from the stored one: bf16 and fp16 stay well inside."""
ENGINE_TIMEOUT_S = 5.0
"""How long an engine may take to say how it is: its event loop answers also while a batch runs."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was tried."""

    name: str
    ok: bool
    words: tuple[str, ...]


class Setting(msgspec.Struct, frozen=True):
    """One knob as it is in force."""

    variable: str
    value: str
    is_default: bool
    meaning: str


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that `laescan doctor` says."""

    ok: bool
    checks: tuple[Check, ...]
    settings: tuple[Setting, ...]
    repairs: tuple[Repair, ...] = ()


def examine(environ: Mapping[str, str]) -> Diagnosis:
    """Try everything; a check that fails does not stop the others."""
    settings, settings_check = _settings(environ)
    checks = (
        settings_check,
        _versions(),
        *_model(settings),
        *_regions(settings),
        _try("face detector", _face_detector),
        _engine(settings),
        _try("jail", lambda: _jail(settings)),
        _try("video pages", lambda: _pages(settings)),
        _state(settings),
        _receipts(settings),
        _try("egress", lambda: asyncio.run(_egress(settings))),
    )
    return Diagnosis(all(check.ok for check in checks), checks, settings_in_force(settings))


def settings_in_force(settings: Settings) -> tuple[Setting, ...]:
    """Every variable with its value and meaning."""
    defaults, meanings = Settings(), setting_meanings()
    return tuple(
        Setting(
            f"{PREFIX}{name.upper()}",
            _text(getattr(settings, name)),
            getattr(settings, name) == getattr(defaults, name),
            meanings[name],
        )
        for name in settings.__struct_fields__
    )


def setting_meanings() -> dict[str, str]:
    """The docstring under each field of Settings, which Python itself throws away."""
    (body,) = (
        node.body
        for node in ast.parse(inspect.getsource(settings_module)).body
        if isinstance(node, ast.ClassDef) and node.name == "Settings"
    )
    return {
        field.target.id: str(doc.value.value)
        for field, doc in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant)
    }


def _text(value: object) -> str:
    """As it would be written, without passwords in URLs: what doctor says is pasted into bug reports."""
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return re.sub(r"(://[^:/@]*:)[^@/]+@", r"\1***@", text)


def _try(name: str, attempt: Callable[[], Check]) -> Check:
    """A check that ends in a coded error is a check that failed."""
    try:
        return attempt()
    except ScanError as error:
        return Check(name, ok=False, words=(f"{error.code}: {error}",))


def _settings(environ: Mapping[str, str]) -> tuple[Settings, Check]:
    """With bad settings the defaults are examined, so that the list of settings can be read."""
    try:
        settings = Settings.from_env(environ)
    except SettingsError as error:
        return Settings(), Check("settings", ok=False, words=(str(error), "everything below was tried with defaults"))
    changed = [f"{s.variable}={s.value}" for s in settings_in_force(settings) if not s.is_default]
    return settings, Check("settings", ok=True, words=tuple(changed) or ("all defaults",))


def _versions() -> Check:
    here = (f"{name} {metadata.version(name)}" for name in PACKAGES)
    return Check("versions", ok=True, words=(f"Python {platform.python_version()}, {', '.join(here)}",))


def _model(settings: Settings) -> tuple[Check, ...]:
    """Weights, backend, golden self-test."""
    try:
        detector = Detector.load(settings)
    except BadWeights as error:
        return (Check("weights", ok=False, words=(f"{error.code}: {error}",)),)
    return _weights("weights", detector), _backend(detector), _engines(detector, settings), _golden(detector)


def _regions(settings: Settings) -> tuple[Check, ...]:
    """The same for whole pictures; nothing where those are not looked at."""
    if not settings.regions:
        return ()
    name = "weights for whole pictures"
    try:
        detector = Detector.load_for_regions(settings)
    except BadWeights as error:
        return (Check(name, ok=False, words=(f"{error.code}: {error}",)),)
    return _weights(name, detector), _golden(detector, "golden scores for whole pictures")


def _weights(name: str, detector: Detector) -> Check:
    about = detector.checkpoint.card.get("name", "no name")
    digest = "its digest is right" if detector.checkpoint.is_listed else "no digest to hold it against"
    return Check(name, ok=True, words=(f"model {detector.info.model_id} ({about}), {digest}",))


def _backend(detector: Detector) -> Check:
    backend = detector.backend
    words = [f"{backend.device}, {backend.precision}: {backend.why}"]
    cores = len(os.sched_getaffinity(0))
    words.append(f"{torch.get_num_threads()} compute threads on {cores} cores")
    if os.environ.get("OMP_WAIT_POLICY", "").upper() != "PASSIVE":
        words.append("threads spin while they wait; unset OMP_WAIT_POLICY, or set it to PASSIVE")
    return Check("backend", ok=True, words=tuple(words))


def _engines(detector: Detector, settings: Settings) -> Check:
    """Which TensorRT engine scores; none is no fault, one that was tampered with is."""
    ok, words = engines.report(detector, settings)
    return Check("engines", ok=ok, words=words)


def _golden(detector: Detector, name: str = "golden scores") -> Check:
    """Score the golden crops and compare with what the checkpoint remembers."""
    stored = np.asarray(detector.checkpoint.card.get("golden", ()), np.float64)
    scores = detector.score(golden_crops()).raw
    if stored.shape != scores.shape:
        return Check(name, ok=False, words=("the checkpoint has none; save it again with this version",))
    worst = float(np.abs(scores - stored).max())
    words = f"{len(stored)} crops scored, at most {worst:.1e} from what was stored (tolerance {GOLDEN_TOLERANCE:g})"
    return Check(name, ok=worst <= GOLDEN_TOLERANCE, words=(words,))


def _face_detector() -> Check:
    FaceDetector()
    return Check("face detector", ok=True, words=("MTCNN cascade loaded",))


def _engine(settings: Settings) -> Check:
    """Who answers where workers will ask; nobody is no fault, since `laescan scan` needs nobody."""
    path = socket_path(settings)
    try:
        there = status(path, timeout_s=ENGINE_TIMEOUT_S)
    except NoEngine as error:
        # a socket without an answer is an engine that hangs, or one that was killed and not started again
        return Check("engine", ok=not path.exists(), words=(str(error) if path.exists() else f"none runs at {path}",))
    who = f"{there.info.model_id} on {there.info.backend}, {there.info.precision}, at {path} (process {there.pid})"
    how = f"up for {there.up_s:.0f} s, {there.frames} frames and {there.tiles} tiles in {there.batches} batches"
    waiting = f"{there.queued} interactive and {there.queued_bulk} bulk requests wait"
    return Check("engine", ok=True, words=(who, f"{how}, {there.halvings} halved for want of memory; {waiting}"))


def _jail(settings: Settings) -> Check:
    with Jail(settings) as jail:
        report = jail.report()
    return Check("jail", ok=report.ok or not settings.require_jail, words=report.words)


def _pages(settings: Settings) -> Check:
    report = asyncio.run(try_walls(settings))
    return Check("video pages", ok=report.ok, words=report.words)


def _state(settings: Settings) -> Check:
    """Whether what should be private is; what only lies about is told."""
    open_ones = [str(path) for path, _ in exposed(settings)]
    words = [f"others may read {path}: `laescan doctor --fix` closes it" for path in open_ones]
    words += [f"nobody listens on {path}: `laescan doctor --fix` removes it" for path in stale_sockets(settings)]
    return Check("state", ok=not open_ones, words=tuple(words) or (f"{state_path(settings)} is for us alone",))


def _receipts(settings: Settings) -> Check:
    """Which key signs; none is no fault: the API makes it when it is first asked for, and nobody else needs it."""
    path = Path(settings.receipt_key or state_path(settings) / "receipt.key")
    shared = "several APIs need the same key: LAESCAN_RECEIPT_KEY"
    if not path.exists():
        can = os.access(path.parent, os.W_OK) or not path.parent.exists()
        words = (
            f"no key yet; the API makes {path} when it first signs"
            if can
            else f"no key, and none can be made at {path}"
        )
        return Check("receipts", ok=True, words=(words, shared))
    try:
        key = key_id(public_key(Signer(settings).public_pem()))
    except ReceiptError as error:
        return Check("receipts", ok=False, words=(str(error),))
    return Check("receipts", ok=True, words=(f"signed by key {key}, {path}", shared))


async def _egress(settings: Settings) -> Check:
    """Ask for a page on loopback: it must be refused before a byte, even a connection, gets there."""
    reached = asyncio.Event()

    async def canary(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.set()
        writer.close()

    async with await asyncio.start_server(canary, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        strict = msgspec.structs.replace(settings, allow_networks=(), allow_ports=(80, 443, port))
        refused = False
        with scratch_folder() as folder:
            try:
                await fetch(f"http://127.0.0.1:{port}/canary.jpg", folder=folder, settings=strict)
            except BlockedAddress:
                refused = True
    ok = refused and not reached.is_set()
    words = ["a canary on loopback was asked for and " + ("not reached" if ok else "REACHED")]
    if settings.allow_networks:
        words.append(f"open by LAESCAN_ALLOW_NETWORKS: {', '.join(settings.allow_networks)}")
    return Check("egress", ok=ok, words=tuple(words))
