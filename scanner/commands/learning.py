"""`laescan train`, `evaluate` and `annotate`: their arguments and words; what they do is in `scanner.training`."""

import argparse
import asyncio
import sys
from pathlib import Path

from scanner.commands.exits import Exit, fail


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The three commands and their arguments."""
    _add_annotate(commands)
    _add_train(commands)
    evaluate = commands.add_parser(
        "evaluate",
        help="measure what `laescan train` has finished",
        description="Write report.html, report.md and report.json anew from every finished arm and seed.",
    )
    evaluate.add_argument("folder", type=Path, metavar="DIR", help="as given to `laescan train --out`")
    evaluate.set_defaults(run=learn)


def _add_annotate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    annotate = commands.add_parser(
        "annotate",
        help="draw masks on the candidates that training selected",
        description="Open a page on this machine, one picture after the other, to mark what was forged. Ctrl+C ends.",
        epilog="Masks are saved as you draw: FOLDER/masks/NAME.png, 8-bit, 255 = forged; training reads them there.",
    )
    annotate.add_argument("folder", type=Path, metavar="FOLDER", help="with a candidates.json, as training writes it")
    annotate.add_argument("--port", type=int, default=0, metavar="N", help="on 127.0.0.1 (default: any that is free)")
    annotate.add_argument("--no-browser", action="store_true", help="only print the address")
    annotate.set_defaults(run=run_annotate)


def _add_train(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    train = commands.add_parser(
        "train",
        help="train the detector and its peers by the paper's protocol, and report",
        description="Two stages with active selection, over arms and seeds. Give the same command again to go on.",
        epilog="Exit codes: 0 done, 2 the command is wrong, 3 masks are to be drawn first (`laescan annotate`).",
    )
    train.add_argument("--task", required=True, choices=("face-swap", "attributes", "inpainting"))
    train.add_argument("--out", type=Path, required=True, metavar="DIR", help="runs and report; resumed when there")
    train.add_argument("--data", type=Path, metavar="PATH", help="FaceForensics++, Celeb-DF-v2, DFDC, pairs or holes")
    train.add_argument("--pictures", type=Path, metavar="PATH", help="instead of --data: photographs to forge from")
    train.add_argument("--seen", action="append", metavar="FAMILY", help="trained on; may be repeated")
    train.add_argument("--unseen", action="append", metavar="FAMILY", help="only measured; may be repeated")
    train.add_argument("--arms", metavar="A,B", help="what to compare; `all` for every ablation (default: the claims)")
    train.add_argument("--seeds", type=int, metavar="N", help="repetitions (default: 3)")
    train.add_argument("--masks", choices=("automatic", "human"), default="automatic", help="of selected candidates")
    train.add_argument(
        "--vgg", type=Path, metavar="FILE", help="VGG-16 weights for the perceptual loss (else weight 0)"
    )
    train.add_argument(
        "--scale",
        choices=("evening", "night", "paper"),
        default="night",
        help="two cores an evening or a night, or a GPU",
    )
    train.add_argument("--smoke", action="store_true", help="all of it, tiny: does it run?")
    train.set_defaults(run=learn)


def run_annotate(given: argparse.Namespace) -> Exit:
    """Serve the page until Ctrl+C, then say what is there."""
    import webbrowser

    from scanner.training.annotate import serve
    from scanner.training.candidates import CandidatesError, read_sources

    def ready(address: str) -> None:
        print(f"annotate at {address} (Ctrl+C ends)", flush=True)
        if not given.no_browser:
            webbrowser.open(address)

    try:
        asyncio.run(serve(given.folder, port=given.port, ready=ready))
    except (CandidatesError, OSError, OverflowError) as error:  # the last: a port above 65535
        return fail(str(error), Exit.USAGE)
    sources = list(read_sources(given.folder).values())
    print(", ".join(f"{sources.count(source)} {source}" for source in sorted(set(sources))) or "no mask yet")
    return Exit.OK


def learn(given: argparse.Namespace) -> Exit:
    """Train or evaluate, and say where the report is."""
    from scanner.errors import BadWeights
    from scanner.training import command
    from scanner.training.protocol import MasksWanted

    def tell(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    try:
        print((command.train if given.command == "train" else command.report)(given, tell))
    except MasksWanted as wanted:
        return fail(str(wanted), Exit.SOME_FAILED)
    except (ValueError, OSError, BadWeights) as error:
        return fail(str(error), Exit.USAGE)
    return Exit.OK
