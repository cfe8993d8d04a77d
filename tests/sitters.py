"""Six portraits, cut once for all tests of training, and a network small enough to be trained in one."""

from functools import cache
from pathlib import Path

import cv2
import torch

from scanner.detection.faces import FaceDetector
from scanner.detection.lae import LAEConfig
from scanner.training.portraits import from_files, split_of

PICTURES = tuple(sorted((Path(__file__).parent / "media").glob("*_[123].jpg")))
TINY = LAEConfig(patch=4, widths=(8, 8, 16), latent=16)  # maps of 16 x 16, 1/100 of the work of the default


@cache
def portraits():
    """All six: by their names four fall to train, `london_2` to val, `london_1` to test."""
    torch.set_num_threads(1)
    cv2.setNumThreads(0)  # on a busy machine its threads cost 25 times what they compute
    return tuple(from_files(PICTURES, FaceDetector()))


def of_split(split):
    return [portrait for portrait in portraits() if split_of(portrait.identity) == split]
