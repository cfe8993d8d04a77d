"""`laescan train` and `laescan evaluate`: arguments in, a folder with runs and a report out.

One reason: it alone decides where the pictures of a task come from, a data set or photographs to forge from.
"""

import argparse
from pathlib import Path

from scanner.training.arms import ARMS, DEFAULT, SCALES, SMOKE_ARMS
from scanner.training.extract import task_data
from scanner.training.forged import Pairs, forged_task, photographs_of
from scanner.training.portraits import CROP_PX
from scanner.training.protocol import Plan, Tell, read_plan, run
from scanner.training.report import evaluate
from scanner.training.tasks import OWN, TaskData, at_size, task_name


def plan_of(given: argparse.Namespace) -> Plan:
    """The plan that arguments ask for; raises ValueError when they do not fit together."""
    task = task_name(given.task)
    if (given.data is None) == (given.pictures is None):
        msg = "give --data (a data set) or --pictures (photographs to forge from), one of them"
        raise ValueError(msg)
    own = OWN[task]
    seen, unseen = tuple(given.seen or ()), tuple(given.unseen or ())
    if given.data and not (seen and unseen):
        msg = "with --data, name the methods: --seen Face2Face --unseen FaceSwap"
        raise ValueError(msg)
    arms = tuple(given.arms.split(",")) if given.arms else SMOKE_ARMS if given.smoke else DEFAULT
    return Plan(
        task,
        seen or own.seen,
        unseen or own.unseen,
        tuple(ARMS) if arms == ("all",) else arms,
        seeds=given.seeds or (1 if given.smoke else 3),
        data=str(given.data.resolve()) if given.data else None,
        pictures=str(given.pictures.resolve()) if given.pictures else None,
        masks=given.masks,
        vgg=str(given.vgg.resolve()) if given.vgg else None,
        scale=SCALES["smoke" if given.smoke else given.scale],
    )


def data_of(plan: Plan, folder: Path) -> TaskData:
    """The plan's task, extracted or forged on the first call; raises ValueError when the pictures do not allow it."""
    data, side_px = _whole_data(plan, folder), plan.scale.crop_px
    return data if side_px == CROP_PX else at_size(data, side_px)


def _whole_data(plan: Plan, folder: Path) -> TaskData:
    if plan.data:
        return task_data(plan.task, Path(plan.data), plan.seen, plan.unseen, cache=folder / "data")
    photographs = photographs_of(Path(plan.pictures or ""), plan.task, cache=folder / "data" / "photographs.npz")
    scale = plan.scale
    pairs: Pairs = {"train": scale.train_pairs, "val": scale.val_pairs, "test": scale.test_pairs}
    return forged_task(plan.task, photographs, seen=plan.seen, unseen=plan.unseen, pairs=pairs, folder=folder / "data")


def train(given: argparse.Namespace, tell: Tell) -> Path:
    """The whole protocol, or what is left of it, and its report; raises ValueError, BadWeights, MasksWanted."""
    plan, folder = plan_of(given), given.out
    plan.check()
    plan.keep(folder)
    data = data_of(plan, folder)
    run(plan, data.seen, folder, tell=tell)
    return evaluate(folder, data, tell=tell)


def report(given: argparse.Namespace, tell: Tell) -> Path:
    """The report of what is finished in a folder; raises ValueError when nothing is."""
    plan = read_plan(given.folder)
    return evaluate(given.folder, data_of(plan, given.folder), tell=tell)
