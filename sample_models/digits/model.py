"""A small convolutional classifier of handwritten digits, 8x8 pixels, and the factory that edgeml
export calls: ``sample_models/digits/model.py:trained``.

``train.py`` beside it makes the weights. Nothing here knows of edgeml.
"""

import os
from pathlib import Path

import torch
from torch import nn

WEIGHTS = Path(os.environ.get("DIGITS_WEIGHTS", Path(__file__).parent / "weights.pt"))


class Digits(nn.Module):
    """``image`` [n, 1, 8, 8] float32 in 0 … 1 → ``logits`` [n, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, kernel_size=3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(32, 32, kernel_size=3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
        )
        self.classify = nn.Linear(32 * 4, 10)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """Class scores before the softmax."""
        return {"logits": self.classify(self.features(image).flatten(1))}


def trained() -> nn.Module:
    """The network with the weights that ``train.py`` wrote."""
    if not WEIGHTS.exists():
        message = f"{WEIGHTS} is missing: run train.py beside this file first"
        raise FileNotFoundError(message)
    model = Digits()
    model.load_state_dict(torch.load(WEIGHTS, weights_only=True))
    return model
