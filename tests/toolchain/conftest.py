"""A tiny toolchain: real venv, real pip, one wheel that is made here. No network."""

from __future__ import annotations

import base64
import hashlib
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from edgeml.toolchain import install, store
from edgeml.toolchain.spec import ToolchainSpec


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toolchain of :func:`spec`, really installed: making a venv takes seconds."""
    root = tmp_path_factory.mktemp("template")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(store.HOME_VARIABLE, str(root / "toolchains"))
        return install.install(tiny(root), say=lambda _: None).folder


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home for toolchains."""
    folder = tmp_path / "toolchains"
    monkeypatch.setenv(store.HOME_VARIABLE, str(folder))
    return folder


@pytest.fixture
def spec(tmp_path: Path, home: Path) -> ToolchainSpec:
    """A toolchain that holds one package, ``pebble`` 1.0; not installed yet."""
    return tiny(tmp_path)


@pytest.fixture
def installed(spec: ToolchainSpec, template: Path, home: Path) -> ToolchainSpec:
    """The same, installed."""
    shutil.copytree(template, home / spec.name, symlinks=True)
    record = home / spec.name / store.RECORD
    was = msgspec.json.decode(record.read_bytes(), type=store.Record)
    now = msgspec.structs.replace(was, key=store.key(spec, was.python))
    record.write_bytes(msgspec.json.encode(now))
    return spec


def tiny(tmp_path: Path) -> ToolchainSpec:
    """The specification, with its files below ``tmp_path``."""
    constraints = tmp_path / "constraints.txt"
    constraints.write_text("pebble==1.0\n")
    wheel = make_wheel(tmp_path, "pebble", "1.0", "weight = 7\n")
    return ToolchainSpec(
        name="tiny",
        holds="a pebble",
        constraints=constraints,
        requirements=(str(wheel),),
        size_bytes=1_000_000,
    )


@pytest.fixture
def holding(spec: ToolchainSpec) -> Callable[..., ToolchainSpec]:
    """Makes the same toolchain with something else in it."""

    def make(*requirements: str) -> ToolchainSpec:
        return replace(spec, requirements=requirements)

    return make


def make_wheel(folder: Path, name: str, version: str, code: str) -> Path:
    """Write a wheel of one module."""
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}.py": code,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n"
        "Tag: py3-none-any\n",
    }
    record = "".join(
        f"{path},sha256={_digest(text)},{len(text.encode())}\n" for path, text in files.items()
    )
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            archive.writestr(path, text)
    return wheel


def _digest(text: str) -> str:
    raw = hashlib.sha256(text.encode()).digest()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
