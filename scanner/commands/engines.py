"""`laescan engines`: build, list, measure and remove the TensorRT engines of this machine."""

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scanner.commands.exits import Exit, fail
from scanner.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scanner.detection.detector import Detector
    from scanner.detection.engines import Crops
    from trt_engines.flavours import Flavour
    from trt_engines.store import Entry, Store

PRECISIONS = ("fp16", "bf16", "fp32", "fp8", "int8")
EPILOG = """\
An engine is machine code for one model, GPU, driver and TensorRT, so it is built where it runs and never copied.
`laescan engine` builds what is missing by itself, in the background (LAESCAN_ENGINES=auto).
fp8 and int8 are calibrated and judged on crops whose truth is known: --crops FOLDER with real/ and forged/, at least
100 pictures in each. An engine is taken only when no score moves by more than 0.02 and, with --crops, the AUC falls by
no more than 0.002.

examples:
  laescan engines build
  laescan engines build --precision int8 --crops validation/
  laescan engines list
  laescan engines bench

exit codes:
  0  done, or there already
  1  an engine was built and not taken, or the compiler refused it
  2  the command or a setting is wrong
  4  no engine can be built or run here; the words tell what is missing
"""


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The command, its four actions and their arguments."""
    engines = commands.add_parser(
        "engines",
        help="build, list, measure and remove TensorRT engines",
        description="Build, list, measure and remove the TensorRT engines of this machine.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    actions = engines.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="build what is missing for the models in use; takes minutes")
    build.add_argument("--precision", choices=PRECISIONS, default="fp16", help="of the convolutions (default: fp16)")
    build.add_argument("--batch", default="1:64:256", metavar="A:B:C", help="least, best, most crops at once")
    build.add_argument("--flavour", metavar="NAME", help="compiler (default: the best that is here); `list` names them")
    build.add_argument("--crops", type=Path, metavar="FOLDER", help="with real/ and forged/, to calibrate and judge on")
    build.add_argument("--force", action="store_true", help="build although one fits")
    listing = actions.add_parser("list", help="what is there, whether it fits, which compilers are here")
    listing.add_argument("--json", action="store_true", help="manifests and their state, one JSON object a line")
    actions.add_parser("bench", help="time every engine that fits, beside torch without one")
    prune = actions.add_parser("prune", help="remove what does not fit, cannot be trusted or was replaced")
    prune.add_argument("--all", action="store_true", help="remove every engine")
    engines.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """One action; raises SettingsError."""
    from scanner.detection.detector import Detector
    from scanner.detection.engines import engine_store
    from scanner.errors import BadWeights

    settings = Settings.from_env(os.environ)
    try:
        detectors = [Detector.load(settings)]
        if settings.regions:
            detectors.append(Detector.load_for_regions(settings))
    except BadWeights as error:
        return fail(f"{error.code}: {error}", Exit.NO_ENGINE)
    action = {"build": _build, "list": _list, "bench": _bench, "prune": _prune}[given.action]
    return action(given, detectors, engine_store(settings))


def _build(given: argparse.Namespace, detectors: "list[Detector]", store: "Store") -> int:
    from scanner.detection.engines import Crops, compilers
    from trt_engines.errors import BuildFailed, NoCompiler
    from trt_engines.manifest import Profile

    able, unable = compilers()
    try:
        profile = Profile.parse(given.batch)
        crops = None if given.crops is None else Crops.read(given.crops)
    except (ValueError, OSError) as error:
        return fail(str(error), Exit.USAGE)
    if profile.least != 1:
        return fail("--batch must begin at 1: the last batch may hold a single crop", Exit.USAGE)
    if given.flavour is not None and given.flavour not in able | unable:
        return fail(f"--flavour: there is {', '.join(able | unable)}, no {given.flavour}", Exit.USAGE)
    chosen = _chosen(able, given)
    if chosen is None:
        missing = {given.flavour: unable.get(given.flavour, "")} if given.flavour else unable
        return fail("; ".join(f"{name}: {why}" for name, why in missing.items()), Exit.NO_ENGINE)
    try:
        with store.locked(wait=True):
            for detector in detectors:
                _build_one(given, detector, store, chosen, crops)
    except BuildFailed as error:
        return fail(str(error), Exit.FAIL_ON)
    except NoCompiler as error:
        return fail(str(error), Exit.NO_ENGINE)
    return Exit.OK


def _chosen(able: "dict[str, Flavour]", given: argparse.Namespace) -> "Flavour | None":
    """The flavour that was named, or the first that compiles: what torch runs by itself is no gain."""
    if given.flavour is not None:
        return able.get(given.flavour)
    return next((one for one in able.values() if one.name != "exported" and given.precision in one.precisions), None)


def _build_one(
    given: argparse.Namespace, detector: "Detector", store: "Store", flavour: "Flavour", crops: "Crops | None"
) -> None:
    """Build for one model unless an engine fits already, and say how it came out."""
    from scanner.detection.engines import network
    from trt_engines.build import Wish, build
    from trt_engines.load import find
    from trt_engines.manifest import Profile, Wanted

    model_id, device, profile = detector.info.model_id, detector.backend.device, Profile.parse(given.batch)
    wanted = Wanted(model_id=model_id, precision=given.precision, profile=profile)
    if not given.force:
        there, _ = find(store, wanted, {flavour.name: flavour}, device)
        if there is not None:
            print(f"model {model_id}: there is one already ({there.manifest.built_at})")
            return
    entry = build(network(detector.checkpoint, crops), Wish(given.precision, profile, device), flavour, store)
    about = entry.manifest
    assert about is not None  # noqa: S101 - it was just built
    took = f"exported in {about.export_s:.0f} s, built in {about.build_s:.0f} s, loaded in {about.load_s:.1f} s"
    print(f"model {model_id}: {about.flavour}, {about.precision}, {about.size_bytes:,} bytes; {took}")
    loss = "" if about.guard.auc_loss is None else f", AUC falls by {about.guard.auc_loss:.4f}"
    print(f"  {about.guard.crops} crops: scores move by at most {about.guard.worst_score:.1e}{loss}")
    for one in about.timings:
        print(f"  batch {one.batch:4}: {one.p50_ms:9.3f} ms (p99 {one.p99_ms:.3f}), {one.crops_per_s:12,.0f} crops/s")


def _list(given: argparse.Namespace, detectors: "list[Detector]", store: "Store") -> int:
    from scanner.detection.engines import compilers

    able, unable = compilers()
    for entry, state in _states(detectors, store, able):
        if given.json:
            row = {"name": entry.path.stem, "state": state, "manifest": entry.manifest}
            print(msgspec.json.encode(row).decode())
        else:
            print(f"{entry.path.stem}: {state}")
    if not given.json:
        for name in able:
            print(f"compiler {name}: here")
        for name, why in unable.items():
            print(f"compiler {name}: {why}")
    return Exit.OK


def _states(detectors: "list[Detector]", store: "Store", able: "dict[str, Flavour]") -> "Iterator[tuple[Entry, str]]":
    """Each engine, and "fits" or why not for the model that it is nearest to."""
    from trt_engines.load import state
    from trt_engines.manifest import Wanted

    models = {one.info.model_id: one for one in detectors}
    for entry in store.entries():
        of = entry.manifest.model_id if entry.manifest and entry.manifest.model_id in models else next(iter(models))
        yield entry, state(store, entry, Wanted(model_id=of), able, models[of].backend.device)


def _bench(_given: argparse.Namespace, detectors: "list[Detector]", store: "Store") -> int:
    import torch

    from scanner.detection.engines import compilers, guard_crops
    from trt_engines import bench
    from trt_engines.load import load
    from trt_engines.manifest import Wanted

    able, _ = compilers()
    crops = torch.from_numpy(guard_crops())
    for detector in detectors:
        device, wanted = detector.backend.device, Wanted(model_id=detector.info.model_id)
        sizes: tuple[int, ...] = (1, 16, 64, 256) if device == "cuda" else (1, 4, 8, 16)
        runs = {f"torch on {device}, {detector.info.precision}": (detector.plain_run, sizes)}
        for entry, state in _states([detector], store, able):
            if state == "fits":
                loaded = load(store, entry, wanted, able, device)
                about = loaded.manifest
                runs[f"{about.flavour}, {about.precision}"] = loaded.run, bench.sizes_of(about.profile)
        for name, (one, of_it) in runs.items():
            for timing in bench.timings(one, crops.to(device), of_it):
                row = f"{timing.p50_ms:9.3f} ms, p99 {timing.p99_ms:9.3f} ms, {timing.crops_per_s:12,.0f} crops/s"
                print(f"{detector.info.model_id}  {name:32} batch {timing.batch:4}: {row}")
    return Exit.OK


def _prune(given: argparse.Namespace, detectors: "list[Detector]", store: "Store") -> int:
    from scanner.detection.engines import compilers
    from trt_engines.errors import Busy

    able, _ = compilers()
    try:
        with store.locked():
            kept, freed_bytes = set[tuple[str, str, str]](), 0
            for entry, state in list(_states(detectors, store, able)):  # newest first
                about = entry.manifest
                kind = (about.model_id, about.flavour, about.precision) if about else ("", "", "")
                if given.all or state != "fits" or kind in kept:
                    freed_bytes += store.remove(entry)
                    why = state if state != "fits" else "as asked" if given.all else "replaced"
                    print(f"removed {entry.path.stem}: {why}")
                else:
                    kept.add(kind)
            for file in store.orphans():
                freed_bytes += file.stat().st_size
                file.unlink()
    except Busy as error:
        return fail(str(error), Exit.NO_ENGINE)
    print(f"{freed_bytes:,} bytes freed, {len(kept)} engines kept in {store.folder}")
    return Exit.OK
