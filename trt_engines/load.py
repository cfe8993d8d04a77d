"""A store and a wish in; the best engine that fits, loaded, out, or the reasons why none does.

One reason: whether an engine may run in this process is decided here: trusted, fitting, loadable, in this order.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from trt_engines.errors import EngineTrouble, NoCompiler, Unfit, Untrusted
from trt_engines.export import Run
from trt_engines.flavours import Flavour
from trt_engines.machine import this_machine
from trt_engines.manifest import Manifest, Wanted, misfits
from trt_engines.store import Entry, Store

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """An engine that runs here."""

    run: Run
    manifest: Manifest


def load(store: Store, entry: Entry, wanted: Wanted, flavours: Mapping[str, Flavour], device: str) -> Loaded:
    """One engine; raises Untrusted, Unfit, NoCompiler."""
    manifest = entry.manifest
    if manifest is None:
        raise Untrusted(entry.trouble)
    flavour = flavours.get(manifest.flavour)
    if flavour is None:
        msg = f"{entry.engine.name} is of a flavour that this version does not know ({manifest.flavour})"
        raise Unfit(msg)
    wrong = misfits(manifest, wanted, this_machine(flavour.versions(), device))
    if wrong:
        msg = f"{entry.engine.name} does not fit: {'; '.join(wrong)}"
        raise Unfit(msg)
    with store.opened(entry) as path:
        return Loaded(flavour.load(path, device), manifest)


def find(store: Store, wanted: Wanted, flavours: Mapping[str, Flavour], device: str) -> tuple[Loaded | None, list[str]]:
    """The fastest engine that may run here, and why each faster one may not."""
    reasons: list[str] = []
    for entry in sorted(store.entries(), key=_slowness):
        try:
            return load(store, entry, wanted, flavours, device), reasons
        except (Unfit, Untrusted, NoCompiler) as trouble:
            reasons.append(str(trouble))
    return None, reasons


def state(store: Store, entry: Entry, wanted: Wanted, flavours: Mapping[str, Flavour], device: str) -> str:
    """Either "fits", or why it may not be used; nothing is loaded for the answer."""
    try:
        if entry.manifest is None:
            return entry.trouble
        flavour = flavours.get(entry.manifest.flavour)
        if flavour is None:
            return f"of a flavour that this version does not know ({entry.manifest.flavour})"
        wrong = misfits(entry.manifest, wanted, this_machine(flavour.versions(), device))
        with store.opened(entry):
            return "; ".join(wrong) or "fits"
    except EngineTrouble as trouble:
        return str(trouble)


def _slowness(entry: Entry) -> float:
    """Seconds per crop at its best batch size; what cannot be read comes last."""
    rates = [timing.crops_per_s for timing in entry.manifest.timings] if entry.manifest else []
    return 1 / max(rates) if rates else float("inf")
