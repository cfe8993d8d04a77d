"""Batches of frames in, what became of each frame out: how much fits, and which frame is to blame when something fails.

One reason: requests share batches, so one that cannot be judged must not take the others along, and a device that runs
out of memory must judge less at once and not die.
"""

import logging

import cv2
import torch

from scanner.detection.local_model import LocalModel
from scanner.detection.model import Pixels, SeenFace, SeenTile
from scanner.engine.waiting import Batch
from scanner.engine.wire import Inspect, Wish
from scanner.errors import Internal, OutOfMemory, ScanError

log = logging.getLogger(__name__)

MOST_FRAMES = {"cpu": 4, "cuda": 128}
"""Frames per batch. CPU: the encoder gains 2 % from 4 to 8 crops, and somebody who waits sits through all of them."""
Seen = list[SeenFace] | SeenTile | ScanError
"""What became of one frame, or tile."""


class Seer:
    """Lets the model look at batches and finds out how much fits; blocks."""

    def __init__(self, model: LocalModel) -> None:
        self._model = model
        self._most = MOST_FRAMES.get(model.info.backend, MOST_FRAMES["cuda"])
        self.room = self._most  # frames that are believed to fit
        self.halvings = 0

    def see(self, batch: Batch) -> list[Seen]:
        """What became of each frame; a batch that fails is halved until the frame is found that is to blame.

        Raises torch.AcceleratorError when the device is lost: nothing works after it in this process.
        """
        seen = self._see(batch.frames, batch.look)
        if len(seen) == self.room < self._most:
            self.room += max(1, self.room // 8)  # another process may have given memory back
        return seen

    def _see(self, frames: list[Pixels], look: Wish) -> list[Seen]:
        try:
            if isinstance(look, Inspect):
                return list(self._model.see_tiles(frames))
            limits = {"min_face_px": look.min_face_px, "max_faces": look.max_faces}
            return list(self._model.see(frames, quarters=look.quarters, **limits))
        except torch.AcceleratorError:
            raise
        except torch.OutOfMemoryError:
            self._make_room(len(frames))
            what: ScanError = OutOfMemory(
                "the device has no memory for even one frame; free some of it or set LAESCAN_MAX_DECODED_BYTES lower"
            )
        except (RuntimeError, ValueError, cv2.error) as error:  # how torch, numpy and OpenCV say that they cannot
            log.exception("a batch of %d frames failed", len(frames))
            what = Internal(f"a bug in laescan ({type(error).__name__}: {error}); please report it with the log")
        if len(frames) == 1:
            return [what]
        middle = len(frames) // 2
        return self._see(frames[:middle], look) + self._see(frames[middle:], look)

    def _make_room(self, too_many: int) -> None:
        self.halvings += 1
        self.room = max(1, min(self.room, too_many // 2))
        log.warning("%d frames do not fit into the device's memory; %d at once from now on", too_many, self.room)
        if torch.cuda.is_initialized():
            torch.cuda.empty_cache()
