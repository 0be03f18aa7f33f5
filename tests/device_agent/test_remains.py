"""Versions that go take with them what they left on the disk: a device is updated for years."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import msgspec
import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent
from support.bundles import tiny_bundle

from edgeml.bundle import open_bundle, write_bundle
from edgeml.bundle.archive import describe
from edgeml.device_agent.local.client import CallError, Client
from edgeml.targets.tensorrt import caches
from edgeml.targets.tensorrt.caches import Engine


def version(folder: Path, number: int, *, wrong_golden: bool = False) -> Path:
    """One that runs on the CPU here; on a GPU its TensorRT artifact would, a model of its own."""
    path = tiny_bundle(
        folder, version=f"{number}.0", targets=("onnx", "tensorrt"), wrong_golden=wrong_golden
    )
    bundle = open_bundle(path)
    members = {file.path: bundle.read(file.path) for file in bundle.manifest.files()}
    graph = "artifacts/tensorrt-fp32/tiny.onnx"
    members[graph] = f"graph {number}".encode()
    cpu, gpu = bundle.manifest.artifacts
    gpu = msgspec.structs.replace(gpu, files=(describe(graph, members[graph]),))
    write_bundle(path, msgspec.structs.replace(bundle.manifest, artifacts=(cpu, gpu)), members)
    return path


def engine(number: int, settings: str = "a") -> str:
    model = hashlib.sha256(f"graph {number}".encode()).hexdigest()
    return str(Engine(caches.model_of(model), settings * 16, "c" * 8))


def builds(state: Path, number: int, settings: str = "a") -> None:
    """What the worker of a device with TensorRT leaves."""
    folder = state / "engines" / engine(number, settings)
    os.close(caches.hold(folder))
    (folder / "model.engine").write_bytes(b"engine")
    (folder.parent / f"timing-{settings * 16}").mkdir(exist_ok=True)
    caches.loaded(folder)


def engines(state: Path) -> set[str]:
    return {path.name for path in (state / "engines").iterdir() if path.name[:6] != "timing"}


def ask(agent: AgentProcess, what: str, **body: object) -> dict:
    with Client(agent.socket, timeout_s=PATIENCE_S) as client:
        return client.post(f"/edgeml/v1/models/tiny/{what}", body)


def left(state: Path, kind: str) -> set[str]:
    return {path.name[:16] for path in (state / kind).iterdir()}


def configured(folder: Path, bundle: Path, healthy_s: float) -> Path:
    path = folder / "agent.toml"
    path.write_text(f'healthy_s = {healthy_s}\n[[model]]\nbundle = "{bundle}"\n')
    return path


def test_ten_updates_of_a_running_agent_leave_what_two_versions_need(
    start_agent: StartAgent, tmp_path: Path
):
    versions = [version(tmp_path, number) for number in range(10)]
    state = tmp_path / "state"
    agent = start_agent("--config", configured(tmp_path, versions[0], 300), state=state).ready()
    for number, path in enumerate(versions):
        if number:
            ask(agent, "versions", bundle=str(path))
        builds(state, number)
    # The first is the last one that was confirmed, or at least was there; the tenth serves.
    needed = {open_bundle(versions[number]).sha256[:16] for number in (0, 9)}
    assert left(state, "bundles") == needed
    assert left(state, "artifacts") == left(state, "profiles") == needed
    assert engines(state) == {engine(number) for number in (0, 9)}
    ask(agent, "rollback")
    assert engines(state) == {engine(0)}
    assert left(state, "artifacts") == {open_bundle(versions[0]).sha256[:16]}


def test_what_was_refused_or_dismissed_leaves_nothing(start_agent: StartAgent, tmp_path: Path):
    one, two = version(tmp_path, 1), version(tmp_path, 2)
    wrong = version(tmp_path, 3, wrong_golden=True)
    state = tmp_path / "state"
    agent = start_agent("--config", configured(tmp_path, one, 300), state=state).ready()
    builds(state, 1)
    builds(state, 3)  # it is built before it is compared
    with pytest.raises(CallError, match="golden vectors"):
        ask(agent, "versions", bundle=str(wrong))
    assert engines(state) == {engine(1)}
    ask(agent, "versions", bundle=str(two), mode="shadow")
    builds(state, 2)
    assert left(state, "artifacts") == {open_bundle(path).sha256[:16] for path in (one, two)}
    ask(agent, "dismiss")
    assert engines(state) == {engine(1)}
    assert left(state, "artifacts") == {open_bundle(one).sha256[:16]}


def test_an_engine_of_before_an_upgrade_stays_until_the_model_was_healthy_with_the_new_one(
    start_agent: StartAgent, tmp_path: Path
):
    one = version(tmp_path, 1)
    state = tmp_path / "state"
    for settings in "ab":
        builds(state, 1, settings)
    agent = start_agent("--config", configured(tmp_path, one, 300), state=state).ready()
    with pytest.raises(CallError, match="no version was before"):  # a change, long before that
        ask(agent, "rollback")
    assert engines(state) == {engine(1, "a"), engine(1, "b")}
    assert agent.terminate() == 0
    agent = start_agent("--config", configured(tmp_path, one, 0.1), state=state).ready()
    agent.wait_for(re.escape(f"timing-{'a' * 16}"))
    assert agent.terminate() == 0
    assert {path.name for path in (state / "engines").iterdir()} == {
        engine(1, "b"),
        f"timing-{'b' * 16}",
    }


def test_a_damaged_bundle_of_an_installed_version_takes_no_engine_away(
    start_agent: StartAgent, tmp_path: Path
):
    """Which models it has is not known then."""
    one, two, three = (version(tmp_path, number) for number in (1, 2, 3))
    state = tmp_path / "state"
    agent = start_agent("--config", configured(tmp_path, one, 300), state=state).ready()
    ask(agent, "versions", bundle=str(two))
    (fallback,) = (state / "bundles").glob(f"{open_bundle(one).sha256}*")
    fallback.write_bytes(b"")  # before there are engines: the agent may yet sweep after that change
    for number in (1, 2, 3):
        builds(state, number)
    ask(agent, "versions", bundle=str(three))
    assert engines(state) == {engine(number) for number in (1, 2, 3)}
    agent.wait_for("engines not removed")
