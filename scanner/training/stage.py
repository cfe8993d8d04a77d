"""A method, batches and a folder in, the best weights out: one stage of training, to be gone on with after any kill.

    FOLDER/state.pt   everything that the next epoch needs
    FOLDER/best.pt    the weights of the epoch that validation chose
    FOLDER/log.jsonl  one line per epoch
    FOLDER/done       how it ended; its presence stands for the whole

An epoch is drawn from (seed, stage, epoch) alone, so one that was cut off is lived again to the bit.
"""

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner.training import losses, metrics
from scanner.training.arms import Scale
from scanner.training.batches import NO_MASK, Epoch, on
from scanner.training.data import Sample, collate
from scanner.training.methods import Method
from scanner.training.tasks import Item

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watched:
    """What a method makes of samples, in eval mode."""

    raw: NDArray[np.float64]  # (N,)
    a_real: NDArray[np.float64]  # (N,)
    a_fake: NDArray[np.float64]  # (N,)
    maps: NDArray[np.float32] | None  # (N, h, w)


@torch.inference_mode()
def watch(method: Method, count: int, sample: Callable[[int], Sample], *, batch: int = 32) -> Watched:
    """Look at `count` samples, opened one batch at a time."""
    method.eval()
    device = device_of(method)
    seen = []
    for start in range(0, count, batch):
        x, _, _ = collate([sample(index) for index in range(start, min(start + batch, count))])
        seen.append(method.look(on(device, x)))
    raw, a_real, a_fake = (
        np.concatenate([getattr(s, name).float().cpu().numpy() for s in seen]).astype(np.float64)
        for name in ("score", "a_real", "a_fake")
    )
    maps = [s.attention_map.float().cpu().numpy() for s in seen if s.attention_map is not None]
    return Watched(raw, a_real, a_fake, np.concatenate(maps) if maps else None)


def device_of(method: nn.Module) -> str:
    """Where its weights are."""
    return str(next(method.parameters()).device)


@dataclass(frozen=True)
class Course:
    """What one stage does: its number, pictures and length."""

    number: int  # 1 or 2
    seed: int
    train: Sequence[Item]
    val: Sequence[Item]
    lr: float
    epochs: int
    patience: int  # epochs without a rise in accuracy; 0 for never
    candidates: Sequence[Sample] = ()
    held_out: Sequence[Sample] = ()  # masked, not trained on: decides between epochs of equal accuracy
    augment: bool = False


class Stage:
    """One stage of one method in a folder."""

    def __init__(self, method: Method, course: Course, scale: Scale, folder: Path) -> None:
        self.course, self.scale, self.folder = course, scale, folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.method: Method = method.to(memory_format=torch.channels_last).to(self.device)  # type: ignore[call-overload]
        adversary = self.method.adversary
        own = {id(p) for p in adversary.parameters()} if adversary else set()
        mine = [p for p in self.method.parameters() if id(p) not in own]
        self.optimizer = torch.optim.Adam(mine, lr=course.lr)  # betas (0.9, 0.999), as 8.7
        self.adversary_optimizer = adversary.optimizer() if adversary else None
        self.epoch, self.stale, self.best = 0, 0, list[float]()

    def run(self) -> Method:
        """Train to the end, or go on from where a kill left it; returns the method with its best weights."""
        if not (self.folder / "done").exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._resume()
            while self.epoch < self.course.epochs and not (self.course.patience and self.stale >= self.course.patience):
                self._live_an_epoch()
            whole(self.folder / "done", json.dumps({"epochs": self.epoch, "best": self.best}).encode())
        state = torch.load(self.folder / "best.pt", map_location=self.device, weights_only=True)
        self.method.load_state_dict(state)
        return self.method.eval()

    def _live_an_epoch(self) -> None:
        course, key = self.course, (self.course.seed, self.course.number, self.epoch)
        torch.manual_seed(int(np.random.default_rng(key).integers(2**31)))  # dropout
        joining = self.scale.candidates if course.candidates else 0
        epoch = Epoch(
            course.train,
            pairs=self.scale.pairs,
            key=key,
            candidates=(course.candidates, joining),
            augment=course.augment,
        )
        self.method.train()
        sums: dict[str, float] = {}
        for batch in epoch.batches(self.device, workers=self.scale.workers):
            parts = self.method.losses(batch)
            self.optimizer.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()
            nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 5.0)
            self.optimizer.step()
            if self.adversary_optimizer:
                parts["discriminator"] = self.method.adversary_loss()
                self.adversary_optimizer.zero_grad(set_to_none=True)
                parts["discriminator"].backward()
                self.adversary_optimizer.step()
            for name, value in parts.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
        self.epoch += 1
        self._judge({name: round(total / max(1, len(epoch)), 5) for name, total in sums.items()})

    def _judge(self, report: dict[str, float]) -> None:
        """Validate, keep the weights when they are the best so far, save."""
        found = validate(self.method, self.course.val, self.course.held_out)
        mark = [found["accuracy"], -found.get("attention", 0.0), found["auc"]]
        self.stale = 0 if not self.best or mark[0] > self.best[0] else self.stale + 1
        if not self.best or mark > self.best:
            self.best = mark
            self._write("best.pt", self.method.state_dict())
        lines = self.folder / "log.jsonl"
        before = lines.read_text().splitlines()[: self.epoch - 1] if lines.exists() else []
        line = json.dumps({"epoch": self.epoch, **report, **{f"val_{k}": round(v, 5) for k, v in found.items()}})
        whole(lines, "".join(f"{entry}\n" for entry in [*before, line]).encode())
        log.info("%s %s", self.folder, line)
        self._save()

    def _save(self) -> None:
        optimizers = [self.optimizer, *([self.adversary_optimizer] if self.adversary_optimizer else [])]
        state = {
            "method": self.method.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in optimizers],
            "epoch": self.epoch,
            "stale": self.stale,
            "best": self.best,
        }
        self._write("state.pt", state)

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.method.load_state_dict(state["method"])
            optimizers = [self.optimizer, *([self.adversary_optimizer] if self.adversary_optimizer else [])]
            for optimizer, kept in zip(optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(kept)
            self.epoch, self.stale, self.best = state["epoch"], state["stale"], state["best"]
            log.info("%s goes on after epoch %d", self.folder, self.epoch)

    def _write(self, name: str, state: dict[str, Any]) -> None:
        beside = self.folder / f"{name}.tmp"
        torch.save(state, beside)
        beside.replace(self.folder / name)


def validate(method: Method, val: Sequence[Item], held_out: Sequence[Sample] = ()) -> dict[str, float]:
    """Seen validation: accuracy at its best threshold, accuracy at the built-in rule, AUC; L_att of held-out masks."""
    raw = watch(method, len(val), lambda index: Sample(val[index].crop(), NO_MASK, "", "")).raw
    is_real = np.array([item.is_real for item in val])
    real, fake = raw[is_real], raw[~is_real]
    cut = metrics.best_threshold(real, fake)
    found = {
        "accuracy": metrics.accuracy(real, fake, cut),
        "accuracy_rule": metrics.accuracy(real, fake, 0.0),
        "auc": metrics.auc(real, fake),
    }
    if held_out and (maps := watch(method, len(held_out), held_out.__getitem__).maps) is not None:
        _, mask, _ = collate(held_out)
        found["attention"] = float(losses.attention_loss(torch.from_numpy(maps), mask))
    return found


def whole(path: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(f"{path.name}.tmp")
    beside.write_bytes(data)
    beside.replace(path)
