"""The pins hold what pyproject.toml asks for, and pyproject.toml nothing that is not pinned."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from edgeml.toolchain import store
from edgeml.toolchain.spec import TOOLCHAINS

ROOT = Path(__file__).parents[2]
PINS = ROOT / "edgeml" / "toolchain" / "constraints"
LIGHT = ("agent", "tflite", "openvino", "onnx", "collector", "drift", "dev")


def pins(name: str) -> dict[str, Version]:
    lines = (PINS / f"{name}.txt").read_text().splitlines()
    parsed = [Requirement(line) for line in lines if line and not line.startswith("#")]
    for requirement in parsed:
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", requirement
    return {
        canonicalize_name(requirement.name): Version(next(iter(requirement.specifier)).version)
        for requirement in parsed
    }


@pytest.mark.parametrize(("name", "extras"), [("export", ("export",)), ("light", LIGHT)])
def test_every_requirement_is_pinned_within_its_range(name: str, extras: tuple[str, ...]) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"]]
    for extra in extras:
        lines += project["optional-dependencies"][extra]
    pinned = pins(name)
    for requirement in map(Requirement, lines):
        if requirement.marker is None or requirement.marker.evaluate():
            version = pinned[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(version), requirement


def test_what_a_toolchain_without_edgeml_installs_is_pinned() -> None:
    (bridge,) = (spec for spec in TOOLCHAINS.values() if not spec.extra)
    for requirement in map(Requirement, bridge.requirements):
        assert canonicalize_name(requirement.name) in pins(bridge.name)


def test_a_pin_names_no_local_build() -> None:
    """``torch==2.13.0+cpu`` is on no package index."""
    for name in ("export", "light", "onnx2tf"):
        assert not [version for version in pins(name).values() if version.local]


def test_the_toolchain_holds_this_checkout() -> None:
    wanted = store.wanted_edgeml(TOOLCHAINS["export"])
    assert wanted is not None
    assert wanted.requirement == ("--editable", f"{ROOT}[export]")
