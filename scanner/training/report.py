"""A folder of trained arms and a task in; report.md, report.html and report.json out: the paper's table, and ours.

One reason: one place that says how good it is, with what it was measured on and what is missing.
"""

import base64
import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import cv2
import numpy as np

from scanner.report.palette import ramp
from scanner.training import plots
from scanner.training.arms import ARMS, PEERS
from scanner.training.candidates import read_sources
from scanner.training.measure import Measured, measure
from scanner.training.portraits import Pixels
from scanner.training.protocol import Plan, Tell, arm_folder, load_arm, read_plan
from scanner.training.stage import Watched, whole
from scanner.training.tasks import Item, TaskData

log = logging.getLogger(__name__)
Results = dict[str, list[Measured]]  # by arm, one a seed
SHOWN = 6  # pictures of each kind
STYLE = """
body { font: 15px/1.5 sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto }
td, th { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
td:first-child, th:first-child { text-align: left }
figure { display: inline-block; margin: .3rem }
figcaption { font-size: .75rem; max-width: 24rem }
"""


@dataclass(frozen=True)
class Section:
    """A heading, words, and a table or pictures below it."""

    title: str
    words: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
    html: str = ""  # not in the Markdown


def evaluate(folder: Path, data: TaskData, *, tell: Tell = log.info) -> Path:
    """Measure every finished arm and seed of a folder and write the report; returns the path of the HTML.

    Raises ValueError when there is no finished arm, or when the task is not the one that was trained on.
    """
    plan = read_plan(folder)
    if (plan.task, plan.seen) != (data.task, data.seen.families):
        msg = f"{folder} was trained on {plan.task} ({', '.join(plan.seen)}), not on what is given here"
        raise ValueError(msg)
    results: Results = {}
    for name in plan.arms:
        for seed in range(plan.seeds):
            if (arm_folder(folder, name, seed) / "done").exists():
                tell(f"measure {name}, seed {seed}")
                results.setdefault(name, []).append(measure(load_arm(plan, folder, name, seed), data))
    if not results:
        msg = f"no arm in {folder} is finished; give `laescan train` again to go on"
        raise ValueError(msg)
    sections = [
        _about(plan, data, folder, results),
        _accuracy(results),
        _classes(results),
        _evidence(results),
        _alarms(results),
        _curves(results, data),
        _pictures(results, data),
    ]
    kept = {
        name: [m.numbers | {f"alarms/{k}": v for k, v in m.alarms.items()} for m in ms] for name, ms in results.items()
    }
    whole(folder / "report.json", json.dumps(kept, indent=1).encode())
    whole(folder / "report.md", "\n\n".join(_markdown(section) for section in sections).encode())
    title = f"LAE and its peers: {plan.task}"
    page = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style>'
    whole(folder / "report.html", (page + "".join(_as_html(section) for section in sections) + "</html>").encode())
    return folder / "report.html"


def spread(values: Sequence[float], *, percent: bool = True) -> str:
    """Mean ± standard deviation over seeds; "-" where there is nothing."""
    if not values:
        return "–"
    scale, digits = (100, 1) if percent else (1, 3)
    mean = f"{scale * float(np.mean(values)):.{digits}f}"
    return f"{mean} ± {scale * float(np.std(values, ddof=1)):.{digits}f}" if len(values) > 1 else mean


def _of(results: Results, arm: str, key: str) -> list[float]:
    return [m.numbers[key] for m in results[arm] if key in m.numbers]


def _about(plan: Plan, data: TaskData, folder: Path, results: Results) -> Section:
    seen, unseen = data.seen, data.unseen
    masks = _mask_counts(folder, results)
    vgg, scale = plan.vgg, plan.scale
    counts = f"{len(seen.train)} to train on, {len(seen.val)} to validate"
    words = [
        f"Seen: {', '.join(seen.families)}. Unseen, measured once all was decided: {', '.join(unseen.families)}.",
        f"Pictures: {data.origin}; {counts}, {len(seen.test)} seen and {len(unseen.measured)} unseen to test.",
        f"Masks: {data.masks}. {masks}",
        f"Perceptual loss: {f'VGG-16 from {Path(vgg).name}' if vgg else 'off (weight 0), no VGG-16 file was given'}.",
        f"Budget, the same for every arm: at most {scale.epochs_1} + {scale.epochs_2} epochs; {plan.seeds} seed(s).",
    ]
    runs = [(name, seed) for name in plan.arms for seed in range(plan.seeds)]
    missing = [f"{name} {seed}" for name, seed in runs if not (arm_folder(folder, name, seed) / "done").exists()]
    if missing:
        words.append(f"Not finished, so not here: {'; '.join(missing)}.")
    return Section(f"{plan.task}: LAE and its peers", tuple(words))


def _mask_counts(folder: Path, results: Results) -> str:
    sources: list[str] = []
    for candidates in sorted(folder.glob("arms/*/*/candidates")):
        if candidates.parent.parent.name in results:
            sources += read_sources(candidates).values()
    counts = [f"{sources.count(source)} {source}" for source in sorted(set(sources))]
    return f"Used on candidates, over all arms and seeds: {', '.join(counts) or 'none'}."


def _accuracy(results: Results) -> Section:
    keys = ("accuracy", "accuracy_rule", "auc", "eer", "video_accuracy")
    header = (
        "arm",
        *(f"{where} {key.replace('_', ' ')}" for where in ("seen", "unseen") for key in keys),
        "what it shows",
    )
    rows = tuple(
        (
            arm,
            *(spread(_of(results, arm, f"{where}/{key}")) for where in ("seen", "unseen") for key in keys),
            ARMS[arm].words,
        )
        for arm in results
    )
    words = ["Accuracy at the threshold fixed on seen validation and at the built-in rule, %; mean ± sd over seeds."]
    peers = {arm: float(np.mean(_of(results, arm, "unseen/accuracy"))) for arm in results if arm in PEERS}
    for arm in (a for a in results if a not in PEERS):
        if peers:
            best = max(peers, key=lambda name: peers[name])
            gain = 100 * (float(np.mean(_of(results, arm, "unseen/accuracy"))) - peers[best])
            words.append(f"{arm} against the best peer ({best}) on unseen families: {gain:+.1f} points.")
    return Section("Seen and unseen", tuple(words), header, rows)


def _classes(results: Results) -> Section:
    keys = sorted({key for ms in results.values() for m in ms for key in m.numbers if "/right_" in key})
    rows = tuple((arm, *(spread(_of(results, arm, key)) for key in keys)) for arm in results)
    return Section(
        "By class", ("Share judged right at the same threshold, %.",), ("arm", *(_plain(k) for k in keys)), rows
    )


def _evidence(results: Results) -> Section:
    keys = [
        f"{w}/{k}" for w in ("seen", "unseen") for k in ("iou", "energy_inside", "deletion_turned", "deletion_agrees")
    ]
    rows = tuple((arm, *(spread(_of(results, arm, key)) for key in keys)) for arm in results)
    words = (
        "Overlap of map and mask (IoU at half of the maximum), share of |M| inside the mask, %.",
        "Deletion: share of the caught fakes that turn real when the forged pixels are put back, %.",
        "Agreement: share of them in which a_F, the mean of the map, falls together with the score, %.",
    )
    return Section("Evidence", words, ("arm", *(_plain(key) for key in keys)), rows)


def _alarms(results: Results) -> Section:
    names = list(next(iter(results.values()))[0].alarms)
    rows = tuple((arm, *(spread([m.alarms[name] for m in results[arm]]) for name in names)) for arm in results)
    words = ("Real test pictures called fake, untouched and carrying nothing but what could be a shortcut, %.",)
    return Section("False alarms", words, ("arm", *names), rows)


def _curves(results: Results, data: TaskData) -> Section:
    """ROC and reliability of the first seed of each arm."""
    drawn = []
    for where, items in (("seen", data.seen.test), ("unseen", data.unseen.measured)):
        is_real = np.array([item.is_real for item in items])
        first = {arm: (ms[0], ms[0].scores[where].raw) for arm, ms in results.items()}
        rocs = {arm: plots.roc(raw[is_real], raw[~is_real]) for arm, (_, raw) in first.items()}
        trusts = {arm: plots.reliability(m.probability(raw), ~is_real) for arm, (m, raw) in first.items()}
        drawn.append(plots.svg(rocs, title=f"ROC, {where}", x="false alarms", y="hits"))
        drawn.append(plots.svg(trusts, title=f"Reliability, {where}", x="P(fake) said", y="share of fakes"))
    return Section("Curves", ("First seed. Probabilities are calibrated on seen validation.",), html="".join(drawn))


def _pictures(results: Results, data: TaskData) -> Section:
    """Hits, misses and false alarms of the first arm on unseen families, with maps."""
    arm, items = next(iter(results)), data.unseen.measured
    m = results[arm][0]
    watched = m.scores["unseen"]
    order = np.argsort(watched.raw)
    fakes, reals = ([int(i) for i in order if items[i].is_real == wanted] for wanted in (False, True))
    kinds: Mapping[str, Iterable[int]] = {
        "Hits": [i for i in fakes[::-1] if watched.raw[i] > m.threshold][:SHOWN],
        "Misses": [i for i in fakes if watched.raw[i] <= m.threshold][:SHOWN],
        "False alarms": [i for i in reals[::-1] if watched.raw[i] > m.threshold][:SHOWN],
    }
    html = "".join(
        f"<h3>{kind}</h3>{''.join(_figure(items[i], i, watched) for i in chosen) or '<p>none</p>'}"
        for kind, chosen in kinds.items()
    )
    words = (f"{arm}, first seed, unseen families: picture, attention map, forgery mask.",)
    return Section("Hits and misses", words, html=html)


def _figure(item: Item, index: int, watched: Watched) -> str:
    crop = item.crop()
    size = crop.shape[1::-1]
    panels = [crop]
    if watched.maps is not None:
        found = np.clip(watched.maps[index], 0, None)
        hot = cv2.resize(found / max(float(found.max()), 1e-6), size, interpolation=cv2.INTER_CUBIC)
        panels.append((0.5 * crop + 0.5 * ramp()[(255 * np.clip(hot, 0, 1)).astype(np.uint8)]).astype(np.uint8))
    if item.mask is not None:
        panels.append(np.repeat((255 * item.mask()).astype(np.uint8)[..., None], 3, 2))
    caption = escape(f"{item.family}, {item.name}, raw score {watched.raw[index]:+.2f}")
    return f'<figure><img src="{_as_uri(np.hstack(panels))}" alt=""><figcaption>{caption}</figcaption></figure>'


def _as_uri(picture: Pixels) -> str:
    small = cv2.resize(picture, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])
    return f"data:image/jpeg;base64,{base64.b64encode(data.tobytes()).decode()}"


def _plain(key: str) -> str:
    return key.replace("/right_", " ").replace("/", " ").replace("_", " ")


def _markdown(section: Section) -> str:
    parts = [f"## {section.title}", *section.words]
    if section.header:
        lines = [section.header, ("---",) * len(section.header), *section.rows]
        parts.append("\n".join(f"| {' | '.join(cell.replace('|', '&#124;') for cell in line)} |" for line in lines))
    return "\n\n".join(parts)


def _as_html(section: Section) -> str:
    words = "".join(f"<p>{escape(word)}</p>" for word in section.words)
    table = ""
    if section.header:
        head = "".join(f"<th>{escape(cell)}</th>" for cell in section.header)
        body = "".join(f"<tr>{''.join(f'<td>{escape(c)}</td>' for c in row)}</tr>" for row in section.rows)
        table = f"<table><tr>{head}</tr>{body}</table>"
    return f"<h2>{escape(section.title)}</h2>{words}{table}{section.html}"
