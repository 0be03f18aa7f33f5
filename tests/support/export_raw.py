"""A user's PyTorch file for preprocessing inside the artifacts: a net of log-mel bands."""

import torch
from torch import nn


class Bands(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.front = nn.Conv2d(1, 8, 3, 2)
        self.head = nn.Linear(8, 4)

    def forward(self, bands):
        return 4 * self.head(torch.relu(self.front(bands)).mean((2, 3)))


def net():
    return Bands()
