"""Portraits in, checkpoint out: the training loop, resumable after a kill at any step.

    python -m scanner.training.train --portraits runs/portraits.npz --run runs/face --families self_blend,warp
    python -m scanner.training.train --portraits runs/scenes.npz --run runs/inpaint --families telea --set subject=scene

A run folder holds `config.json`, `log.jsonl` (one line per report) and `state.pt` (everything needed to go on).
"""

import argparse
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch
import torch.nn.functional as nnf
from torch import Tensor, nn

from scanner.detection.lae import LAE, ConvBNReLU, Encoder, LAEConfig
from scanner.training import degrade, lives, losses, metrics, scenes
from scanner.training.data import Make, Pairs, Sample, collate, fixed, pair
from scanner.training.portraits import Portrait, Split, load, split_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """One training run. `families` is everything the trainer may ever see; held-out ones are simply not there."""

    families: tuple[str, ...]
    steps: int = 4000
    pairs: int = 16  # real/fake pairs per batch
    lr: float = 2e-3
    warmup_steps: int = 200
    weight_decay: float = 1e-2
    latent_weight: float = 0.2
    decision_weight: float = 1.0
    pair_weight: float = 1.0
    local_weight: float = 1.0
    attention_weight: float = 0.3
    attention_from: int = 2000  # steps; before a map finds anything, L_att only puts F to sleep
    attention_norm: str = "density"
    pixel_weight: float = 0.1  # the decoder's gradient is about looks, ours is about traces
    decoded_share: int = 8  # every 8th sample is decoded: the decoder costs as much as the encoder
    ema: float = 0.998  # averaged weights are the ones we keep
    easy_steps: int = 2000  # degradation grows from none to full over these
    seed: int = 0
    report_steps: int = 100
    val_steps: int = 500
    val_per_family: int = 100
    workers: int = 1
    subject: str = "face"  # or "scene": what a canvas shows, see `scenes`
    lives: str = "still"  # or "wide": with video codecs and screenshots
    window_px: int = 256  # train on windows of the crop, all but the end: 192 costs 0.56 of a whole crop
    windows: int = 1  # of each pair: forging one costs as much as learning from one window of it
    whole_from: float = 0.7  # share of the steps after which crops are whole
    begin_with: str = ""  # state.pt of another run, whose weights are taken where they fit
    model: LAEConfig = field(default_factory=LAEConfig)


LIVES: dict[str, lives.Life] = {"still": degrade.draw, "wide": lives.draw}
MAKERS: dict[str, Make] = {"face": pair, "scene": scenes.pair}


def rate_at(step: int, config: TrainConfig) -> float:
    """Learning rate: linear warm-up, then a half cosine to 2 % of the peak."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / config.warmup_steps
    done = (step - config.warmup_steps) / max(1, config.steps - config.warmup_steps)
    return config.lr * (0.02 + 0.98 * 0.5 * (1 + float(np.cos(np.pi * min(done, 1.0)))))


def windows(x: Tensor, mask: Tensor, size_px: int, *, each: int, draws: int = 3) -> tuple[Tensor, Tensor]:
    """Square windows of the crops, `each` of every pair, the same for both of it: of several draws the most forged.

    x (2n, 3, S, S), mask (2n, M, M), reals first, then their forgeries; out: (2n * each, 3, size, size) and
    (2n * each, m, m) in that order too.
    """
    pairs, cell_px = x.shape[0] // 2, x.shape[-1] // mask.shape[-1]
    size = size_px // cell_px
    cut = []
    for at, drawn in enumerate(torch.randint(0, mask.shape[-1] - size + 1, (pairs * each, draws, 2)).tolist()):
        forged = mask[at % pairs + pairs]
        cut.append(max(drawn, key=lambda c: float(forged[c[0] : c[0] + size, c[1] : c[1] + size].sum())))
    at_and_corner = [(i, *cut[i]) for i in range(pairs * each)]
    pictures = [
        x[i % pairs + half, :, y * cell_px : y * cell_px + size_px, left * cell_px : left * cell_px + size_px]
        for half in (0, pairs)
        for i, y, left in at_and_corner
    ]
    masks = [
        mask[i % pairs + half, y : y + size, left : left + size] for half in (0, pairs) for i, y, left in at_and_corner
    ]
    return torch.stack(pictures), torch.stack(masks)


def take_weights(model: LAE, state: Path) -> None:
    """Copy the weights of another run where they fit; what is new in `model` begins as the identity."""
    before = json.loads((state.parent / "config.json").read_text())["model"]
    other = LAE(LAEConfig(**{**before, "widths": tuple(before["widths"])}))
    other.load_state_dict(torch.load(state, map_location="cpu", weights_only=True)["model"])
    if other.config == model.config:
        model.load_state_dict(other.state_dict())
        return

    def stages(encoder: Encoder) -> list[nn.Module]:
        return [stage for stage in encoder.stages if isinstance(stage, ConvBNReLU)]

    for mine, theirs in zip(stages(model.encoder), stages(other.encoder), strict=True):
        mine.load_state_dict(theirs.state_dict(), strict=False)
    for name in ("encoder.gate", "encoder.fc", "decoder"):
        model.get_submodule(name).load_state_dict(other.get_submodule(name).state_dict())


class Run:
    """A model being trained, with all the state that a restart needs."""

    def __init__(self, config: TrainConfig, folder: Path) -> None:
        torch.manual_seed(config.seed)
        self.config, self.folder = config, folder
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        model = LAE(config.model)
        if config.begin_with:
            take_weights(model, Path(config.begin_with))
        self.model = model.to(memory_format=torch.channels_last).to(self.device)  # type: ignore[call-overload]
        self.average = torch.optim.swa_utils.AveragedModel(
            self.model.encoder,
            multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(config.ema),
            use_buffers=True,  # batch-norm statistics are averaged too
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=config.lr, weight_decay=config.weight_decay)
        self.step = 0

    def resume(self) -> None:
        """Go on where the last `save` left off, if there is one."""
        path = self.folder / "state.pt"
        if path.exists():
            state = torch.load(path, map_location=self.device, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step = int(state["step"])
            log.info("resumed at step %d", self.step)

    def save(self) -> None:
        """Write the state; the rename is atomic, so a kill leaves the old or the new one."""
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
        }
        torch.save(state, self.folder / "state.tmp")
        (self.folder / "state.tmp").replace(self.folder / "state.pt")

    def update(self, x: Tensor, mask: Tensor, real: Tensor) -> dict[str, float]:
        """One optimiser step on a batch of `collate`; returns the losses."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = rate_at(self.step, config)
        if config.window_px < config.model.size and self.step < config.whole_from * config.steps:
            x, mask = windows(x, mask, config.window_px, each=config.windows)
            real = real.view(2, -1).repeat(1, config.windows).flatten()
        x = (x.to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)
        mask, real = mask.to(self.device), real.to(self.device)
        self.model.train()
        with torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda"):
            latent = self.model.encoder(x)
            some = slice(None, None, config.decoded_share)
            shown = nnf.interpolate(x[some], config.model.size, mode="bilinear")  # a window, as large as it is decoded
            parts = {
                "latent": config.latent_weight * losses.latent_loss(latent, real),
                "decision": config.decision_weight * losses.decision_loss(latent, real),
                "pair": config.pair_weight * losses.pair_loss(latent),
                "local": config.local_weight * losses.local_loss(latent, mask),
                "attention": config.attention_weight
                * float(self.step >= config.attention_from)
                * losses.attention_loss(latent.attention_map, mask, norm=config.attention_norm),
                "pixel": config.pixel_weight * losses.pixel_loss(self.model.decoder(latent.z[some]), shown),
            }
        self.optimizer.zero_grad(set_to_none=True)
        torch.stack(list(parts.values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        self.optimizer.step()
        self.average.update_parameters(self.model.encoder)
        self.step += 1
        return {name: float(value.detach()) for name, value in parts.items()}

    @property
    def encoder(self) -> Encoder:
        """The averaged encoder: the one to keep."""
        encoder = self.average.module
        assert isinstance(encoder, Encoder)  # noqa: S101 - narrows the type
        return encoder.eval()


@torch.inference_mode()
def score(encoder: Encoder, samples: Sequence[Sample], *, batch: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Raw scores (N,) and attention maps (N, h, w) of samples."""
    device = next(encoder.parameters()).device
    scores, maps = [], []
    for start in range(0, len(samples), batch):
        x, _, _ = collate(samples[start : start + batch])
        latent = encoder((x.to(device).float() / 255).contiguous(memory_format=torch.channels_last))
        scores.append(latent.score.cpu().numpy())
        maps.append(latent.attention_map.cpu().numpy())
    return np.concatenate(scores), np.concatenate(maps)


def validate(encoder: Encoder, samples: dict[str, list[Sample]]) -> dict[str, float]:
    """AUC of each family against the reals, by family, and their mean."""
    scores = {family: score(encoder, group)[0] for family, group in samples.items()}
    found = {f: metrics.auc(scores["real"], s) for f, s in scores.items() if f != "real"}
    return {**found, "mean": float(np.mean(list(found.values())))}


def check_families(config: TrainConfig, folder: Path) -> None:
    """Raise ValueError when a resumed run would leave out a family that it saw: it could then pass for unseen."""
    before = folder / "config.json"
    if before.exists() and (folder / "state.pt").exists():
        seen = set(json.loads(before.read_text())["families"])
        if left_out := seen - set(config.families):
            msg = f"{folder} has learnt from {', '.join(sorted(left_out))}: name it too, or begin in another folder"
            raise ValueError(msg)


def split_in(portrait: Portrait, config: TrainConfig) -> Split:
    """Which split a canvas belongs to; photographs that were kept back as a folder stay kept back."""
    return scenes.split(portrait) if config.subject == "scene" else split_of(portrait.identity)


def train(portraits: Sequence[Portrait], config: TrainConfig, folder: Path) -> Encoder:
    """Run or resume a training run in `folder`; validation is on seen families of validation identities only.

    Raises ValueError when the run in `folder` has learnt from a family that `config` does not name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    check_families(config, folder)
    (folder / "config.json").write_text(json.dumps(asdict(config), indent=1))
    run = Run(config, folder)
    run.resume()
    trained, checked = ([p for p in portraits if split_in(p, config) == name] for name in ("train", "val"))
    make = partial(MAKERS[config.subject], life=LIVES[config.lives])
    val = fixed(checked, config.families, per_family=config.val_per_family, seed=1, make=make)
    stream = Pairs(
        trained,
        config.families,
        pairs=config.pairs,
        seed=config.seed,
        begin=run.step,
        easy_steps=config.easy_steps,
        make=make,
    )
    loader = torch.utils.data.DataLoader(stream, batch_size=None, num_workers=config.workers)
    begun, recent = time.monotonic(), list[dict[str, float]]()
    for batch in loader:
        if run.step >= config.steps:
            break
        recent.append(run.update(*batch))
        if run.step % config.report_steps == 0:
            report = {k: round(float(np.mean([r[k] for r in recent])), 4) for k in recent[0]}
            report |= {"step": run.step, "elapsed_s": round(time.monotonic() - begun, 1)}
            if run.step % config.val_steps == 0:
                report |= {f"auc_{k}": round(v, 4) for k, v in validate(run.encoder, val).items()}
            recent.clear()
            run.save()
            log.info("%s", report)
            with (folder / "log.jsonl").open("a") as lines:
                lines.write(json.dumps(report) + "\n")
    run.save()
    return run.encoder


def configured(config: TrainConfig, fields: Sequence[str]) -> TrainConfig:
    """The config with `field=value` set, for the network's own choices `model.field=value`; raises ValueError."""
    given = dict(field.split("=", 1) for field in fields)
    of_model = {name.removeprefix("model."): given.pop(name) for name in list(given) if name.startswith("model.")}
    if unknown := (given.keys() - asdict(config).keys()) | (of_model.keys() - asdict(config.model).keys()):
        msg = f"no field {', '.join(sorted(unknown))} in TrainConfig"
        raise ValueError(msg)
    try:
        model = msgspec.convert({**asdict(config.model), **of_model}, LAEConfig, strict=False)
        return msgspec.convert({**asdict(config), **given, "model": model}, TrainConfig, strict=False)
    except msgspec.ValidationError as error:
        raise ValueError(str(error)) from error


def main() -> None:
    """Train from a file of portraits."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--portraits", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--families", required=True, help="comma-separated; everything else stays unseen")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="any field of TrainConfig")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    config = configured(TrainConfig(families=tuple(given.families.split(","))), given.set)
    train(load(given.portraits), config, given.run)


if __name__ == "__main__":
    main()
