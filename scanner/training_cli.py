"""`laescan train` and `laescan evaluate`: their arguments.

In: the parser. Out: two commands more. One reason: `scanner.cli` builds every command's arguments each time that it
starts, so they stand apart from what is heavy, and apart from each other.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """The two commands and their arguments."""
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
    train.add_argument("--scale", choices=("night", "paper"), default="night", help="two cores a night, or a GPU")
    train.add_argument("--smoke", action="store_true", help="all of it, tiny: does it run?")
    evaluate = commands.add_parser(
        "evaluate",
        help="measure what `laescan train` has finished",
        description="Write report.html, report.md and report.json anew from every finished arm and seed.",
    )
    evaluate.add_argument("folder", type=Path, metavar="DIR", help="as given to `laescan train --out`")
