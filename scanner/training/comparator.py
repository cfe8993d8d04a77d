"""Pictures in, the features that the perceptual loss compares out: a frozen VGG-16 up to conv4_3.

One reason: "looks alike" is judged by a network that learnt to see; its weights are not ours to ship, so the user gives
the file.  Without one the perceptual weight is 0 and the report says so; random weights are never a stand-in.

Simonyan & Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015, table 1, D.
"""

import pickle
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scanner.errors import BadWeights

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512))  # convolutions between poolings


class Comparator(nn.Module):
    """C(x): x (B, 3, H, W) in 0..1 -> (B, 512, H / 8, W / 8), after the ReLU of the 10th convolution (3.1).

    Layers are numbered as in the usual files (`features.0.weight` ... `features.21.bias`).
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406])[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225])[:, None, None], persistent=False)
        layers: list[nn.Module] = []
        c_in = 3
        for number, block in enumerate(BLOCKS):
            layers += [nn.MaxPool2d(2)] if number else []
            for c_out in block:
                layers += [nn.Conv2d(c_in, c_out, 3, padding=1), nn.ReLU(inplace=True)]
                c_in = c_out
        self.features = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Features of x."""
        return self.features((x - self.mean) / self.std)  # type: ignore[no-any-return]


def load_comparator(path: Path) -> Comparator:
    """The frozen comparator from a VGG-16 file, .safetensors or .pth (read without running code).

    Raises BadWeights when the file is missing or is not a VGG-16.
    """
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        comparator = Comparator()
        wanted = comparator.state_dict()
        comparator.load_state_dict({name: tensors[name] for name in wanted})
    except (OSError, SafetensorError, pickle.UnpicklingError, KeyError, TypeError, RuntimeError) as error:
        msg = f"{path} holds no VGG-16 ({error}); give a file with features.0.weight ... features.21.bias, or none"
        raise BadWeights(msg) from error
    return comparator.eval().requires_grad_(requires_grad=False)
