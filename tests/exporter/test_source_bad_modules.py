"""Modules of PyTorch that are odd or wrong: each works, or is refused with what was found."""

from pathlib import Path

import numpy as np
import pytest
from support.opening import read, reference

from edgeml.errors import EdgemlError
from edgeml.exporter.child import Child
from edgeml.exporter.sources.forms import ArrayShape

FACTORIES = """
import torch
from torch import nn

class Scale(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.by = nn.Parameter(torch.full((4,), 2.0, dtype=kind))
    def forward(self, x):
        return x * self.by

def double(): return Scale(torch.double)
def brain(): return Scale(torch.bfloat16)
def scalar(): return Scale(torch.float), torch.tensor(1.0)

class Total(nn.Module):
    def forward(self, x):
        return x.sum()

def total(): return Total()

class Forgetful(nn.Module):
    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.9)
    def forward(self, x):
        return self.drop(x)

def training(): return Forgetful().train()

class Nothing(nn.Module):
    def forward(self):
        return torch.ones(1)

def nothing(): return Nothing()
"""


@pytest.mark.parametrize("factory", ["double", "brain"])
def test_torch_weights_of_another_precision_become_float32(
    torch_child: Child, tmp_path: Path, factory: str
):
    (tmp_path / "user.py").write_text(FACTORIES)
    row = ArrayShape("x", (4,), "float32")
    found = read(torch_child, f"{tmp_path / 'user.py'}:{factory}", tmp_path, row)
    assert "exported as float32" in found.notes[0]
    answer = reference(torch_child, found, np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(answer["output_0"], np.full((3, 4), 2, np.float32))


def test_a_module_that_is_still_in_training_mode_is_evaluated(torch_child: Child, tmp_path: Path):
    (tmp_path / "user.py").write_text(FACTORIES)
    row = ArrayShape("x", (4,), "float32")
    found = read(torch_child, f"{tmp_path / 'user.py'}:training", tmp_path, row)
    answer = reference(torch_child, found, np.ones((3, 4), np.float32))
    np.testing.assert_array_equal(answer["output_0"], np.ones((3, 4), np.float32))


@pytest.mark.parametrize(
    ("factory", "found"),
    [
        ("scalar", "'x', a scalar"),
        ("total", "(a scalar)"),
        ("nothing", "no named parameters"),
    ],
)
def test_torch_modules_without_a_batch(
    torch_child: Child, tmp_path: Path, factory: str, found: str
):
    (tmp_path / "user.py").write_text(FACTORIES)
    row = ArrayShape("x", (4,), "float32")
    with pytest.raises(EdgemlError) as caught:
        read(torch_child, f"{tmp_path / 'user.py'}:{factory}", tmp_path, row)
    assert found in caught.value.found
