"""Torch programs on their way through a file."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import pytest

from edgeml.targets.frameworks import framework, save_program


def test_a_program_is_saved_as_torch_saves_it_but_for_its_test_of_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    torch: Any = framework("torch")
    serde: Any = framework("torch._export.serde.serialize")
    tested: list[object] = []

    def test_of_itself(program: object, *rest: object) -> object:
        tested.append(program)
        return real(program, *rest)

    real = serde.canonicalize
    monkeypatch.setattr(serde, "canonicalize", test_of_itself)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU())
    program = torch.export.export(net.eval(), (torch.zeros(1, 3, 8, 8),), strict=False)
    torch.export.save(program, str(tmp_path / "theirs.pt2"))
    assert len(tested) == 1
    save_program(program, tmp_path / "ours.pt2")
    assert len(tested) == 1
    assert serde.canonicalize is test_of_itself
    assert _contents(tmp_path / "ours.pt2") == _contents(tmp_path / "theirs.pt2")
    sample = torch.randn(1, 3, 8, 8)
    loaded = torch.export.load(str(tmp_path / "ours.pt2")).module()
    assert torch.equal(loaded(sample), net(sample))


def _contents(path: Path) -> dict[str, bytes]:
    """By name, without the folder, which is the file's."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
