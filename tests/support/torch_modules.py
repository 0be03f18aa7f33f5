"""The torch models of these tests. A file of its own, so that errors name a line of it."""

from __future__ import annotations

import torch
from torch import nn


class Classifier(nn.Module):
    """A convolution net with what such nets have: batch norm, depthwise, residual sum, softmax."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU6())
        self.depthwise = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(12 * 16, 10)

    def forward(self, image):
        first = self.stem(image)
        return self.head(self.pool(first + self.depthwise(first)).flatten(1)).softmax(1)


class Pair(nn.Module):
    """Two inputs of one shape and two outputs of one shape, none to be taken for another."""

    def __init__(self):
        super().__init__()
        self.left = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.right = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.head = nn.Linear(8, 8)

    def forward(self, left, right):
        first, second = self.left(left).relu(), self.right(right).relu()
        difference = (first - 2 * second).mean((2, 3))
        return difference, self.head((first + 0.5 * second).mean((2, 3)))


class Spectrum(nn.Module):
    """Ends in an operator that is given."""

    def __init__(self, operator):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.operator = operator

    def forward(self, x):
        return self.operator(self.conv(x))


class Camera(nn.Module):
    """Holds the spectrum one level down, as ``spectrum``."""

    def __init__(self, operator):
        super().__init__()
        self.front = nn.Conv2d(1, 1, 1)
        self.spectrum = Spectrum(operator)

    def forward(self, x):
        return self.spectrum(self.front(x)) * 2


def singular_values(x):
    return torch.linalg.svdvals(x[:, 0])


def fourier(x):
    return torch.fft.fft2(x).abs()


def bessel(x):
    return torch.special.i0(x)


def polish(x):
    return torch.ops.edgeml_tests.polish(x)
