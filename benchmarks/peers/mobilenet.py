"""MobileNetV2 (Sandler and others, 2018) at width 1.0 and 224x224, and weights for it.

    python mobilenet.py FOLDER

Trained weights cannot be had without a download. Those here are drawn at random; then the batch
norms take their statistics from FOLDER/photos.npy, so that every layer's values are spread as a
trained net's are. Without that step the output hardly depends on the input, and any quantization
looks perfect.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

STAGES = [
    # expansion, channels, repeats, stride
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
]


def unit(inside: int, outside: int, kernel: int, *, stride: int = 1, groups: int = 1) -> list:
    """Convolution, batch norm and the clipped activation."""
    padding = kernel // 2
    convolution = nn.Conv2d(inside, outside, kernel, stride, padding, groups=groups, bias=False)
    return [convolution, nn.BatchNorm2d(outside), nn.ReLU6()]


class Block(nn.Module):
    """An inverted residual."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inside * expansion
        wide = unit(inside, hidden, 1) if expansion > 1 else []
        self.adds = stride == 1 and inside == outside
        self.body = nn.Sequential(
            *wide,
            *unit(hidden, hidden, 3, stride=stride, groups=hidden),
            *unit(hidden, outside, 1)[:-1],
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x) if self.adds else self.body(x)


class MobileNetV2(nn.Module):
    """``photo`` [n, 3, 224, 224] float32 in −1 … 1 → ``logits`` [n, 1000]."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = unit(3, 32, 3, stride=2), 32
        for expansion, channels, repeats, stride in STAGES:
            for index in range(repeats):
                layers.append(Block(width, channels, stride if index == 0 else 1, expansion))
                width = channels
        self.features = nn.Sequential(*layers, *unit(width, 1280, 1))
        self.head = nn.Linear(1280, 1000)

    def forward(self, photo: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.head(self.features(photo).mean((2, 3)))}


def trained() -> nn.Module:
    """The net with the weights that this file's main program wrote beside it."""
    model = MobileNetV2()
    model.load_state_dict(torch.load(Path(__file__).with_name("mobilenet.pt"), weights_only=True))
    return model


def main(folder: Path) -> None:
    torch.manual_seed(0)
    model = MobileNetV2()
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # a plain mean over the batches
    model.train()
    with torch.no_grad():
        for batch in torch.from_numpy(np.load(folder / "photos.npy")).split(16):
            model(batch)
        # Logits with the photos' mean taken off: a decision then depends on the photo alone.
        features = model.eval().features(torch.from_numpy(np.load(folder / "photos.npy"))[:32])
        pooled = features.mean((2, 3))
        nn.init.normal_(model.head.weight, std=1 / float(pooled.std(0).norm()))
        model.head.bias.copy_(-model.head.weight @ pooled.mean(0))
    torch.save(model.state_dict(), folder / "mobilenet.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
