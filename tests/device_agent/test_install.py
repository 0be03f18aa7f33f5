"""Versions on a running agent: installed, refused, confirmed, rolled back, on a start as well."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, StartAgent
from support.bundles import Budgets, sleeper_bundle, tiny_bundle
from support.weights import images, scores

from edgeml.device_agent.install.ledger import BUNDLES, FILE
from edgeml.device_agent.local.client import CallError, Client

FRAME = images(1, seed=3)


def deploy(agent: AgentProcess, bundle: Path, model: str = "tiny", **wish: object) -> dict:
    with Client(agent.socket, timeout_s=PATIENCE_S) as client:
        path = f"/edgeml/v1/models/{model}/versions"
        return client.post(path, {"bundle": str(bundle), **wish})


def record(agent: AgentProcess, model: str = "tiny") -> dict:
    with agent.client(model) as client:
        return client.get(f"/edgeml/v1/models/{model}/versions")


def serving(agent: AgentProcess, model: str = "tiny") -> str:
    """The version that serves; a request shows that it does."""
    with agent.client(model) as client:
        found = client.infer({"image": FRAME[0]})["scores"]
        np.testing.assert_allclose(found, scores(FRAME), atol=1e-4)
        (version,) = client.metadata()["versions"]
        return version


def in_windows(agent: AgentProcess) -> Counter[str]:
    """Requests by outcome in all windows that it closed, of its log."""
    found: Counter[str] = Counter()
    for line in agent.lines:
        if " INFO window " in line:
            for outcome, count in re.findall(r"(served|late|shed|failed)=(\d+)", line):
                found[outcome] += int(count)
    return found


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path, version="1.0")


@pytest.fixture
def two(tmp_path: Path) -> Path:
    return tiny_bundle(tmp_path, version="2.0")


def with_healthy(folder: Path, bundle: Path, seconds: float) -> Path:
    path = folder / "agent.toml"
    path.write_text(f'healthy_s = {seconds}\n[[model]]\nbundle = "{bundle}"\n')
    return path


def test_a_version_is_installed_and_the_one_before_comes_back(
    start_agent: StartAgent, one: Path, two: Path
):
    agent = start_agent("--bundle", one).ready()
    assert serving(agent) == "1.0"
    change = deploy(agent, two)
    assert (change["version"], change["mode"], change["artifact"]) == ("2.0", "active", "onnx-fp32")
    assert serving(agent) == "2.0"
    assert record(agent)["fallback"]["version"] == "1.0"
    with Client(agent.socket, timeout_s=PATIENCE_S) as client:
        back = client.post("/edgeml/v1/models/tiny/rollback", {})
    assert back["version"] == "1.0"
    assert serving(agent) == "1.0"
    with (
        Client(agent.socket, timeout_s=PATIENCE_S) as client,
        pytest.raises(CallError, match="no version was before") as error,
    ):
        client.post("/edgeml/v1/models/tiny/rollback", {})
    assert error.value.status == 409
    assert agent.terminate() == 0


def test_what_was_deployed_serves_after_a_restart(start_agent: StartAgent, one: Path, two: Path):
    agent = start_agent("--bundle", one).ready()
    deploy(agent, two)
    two.unlink()  # the store has it
    assert agent.terminate() == 0
    assert serving(start_agent("--bundle", one).ready()) == "2.0"


def test_another_bundle_in_the_configuration_is_an_installation(
    start_agent: StartAgent, one: Path, two: Path
):
    assert start_agent("--bundle", one).ready().terminate() == 0
    agent = start_agent("--bundle", two).ready()
    assert serving(agent) == "2.0"
    assert record(agent)["fallback"]["version"] == "1.0"


def test_a_bundle_that_does_not_prove_itself_changes_nothing(
    start_agent: StartAgent, one: Path, tmp_path: Path
):
    wrong = tiny_bundle(tmp_path, version="2.0", wrong_golden=True)
    agent = start_agent("--bundle", one).ready()
    with pytest.raises(CallError, match="does not reproduce the golden vectors") as error:
        deploy(agent, wrong)
    assert error.value.status == 409
    assert serving(agent) == "1.0"
    found = record(agent)
    assert found["candidate"] is None
    assert next(iter(found["refused"].values())).startswith("No artifact of tiny 2.0 serves")
    assert agent.terminate() == 0

    # The same from the configuration: the version before serves on.
    agent = start_agent("--bundle", wrong).ready()
    assert serving(agent) == "1.0"
    assert "does not reproduce" in agent.wait_for("not installed")


def test_a_version_that_is_too_slow_for_its_deadline_is_refused(
    start_agent: StartAgent, one: Path, tmp_path: Path
):
    slow = tiny_bundle(tmp_path, version="2.0", budgets=Budgets(deadline_ms=1e-3))
    agent = start_agent("--bundle", one).ready()
    with pytest.raises(CallError, match="99th percentile on this device is .* the deadline is"):
        deploy(agent, slow)
    assert serving(agent) == "1.0"
    assert agent.terminate() == 0
    agent = start_agent("--bundle", slow).ready()
    assert "99th percentile" in agent.wait_for("not installed .*version=2.0")
    assert serving(agent) == "1.0"


def test_a_version_that_needs_more_memory_than_its_budget_is_refused(
    start_agent: StartAgent, one: Path, tmp_path: Path
):
    large = tiny_bundle(tmp_path, version="2.0", budgets=Budgets(memory_mb=5))
    agent = start_agent("--bundle", one).ready()
    with pytest.raises(CallError, match="5 MB are allowed"):
        deploy(agent, large)
    assert serving(agent) == "1.0"


def test_bad_wishes_are_refused_in_words(start_agent: StartAgent, one: Path, tmp_path: Path):
    other = tiny_bundle(tmp_path, name="other", version="1.0")
    damaged = tmp_path / "damaged.edgeml"
    damaged.write_bytes(one.read_bytes()[:-500])
    agent = start_agent("--bundle", one).ready()
    wishes = {
        "holds the model 'other'": (other, {}),
        "serves already": (one, {}),
        "cannot be read|is no|damaged": (damaged, {}),
        "no such file|not exist|cannot be": (tmp_path / "absent", {}),
        "The share is 0 and the mode 'split'": (other, {"mode": "split"}),
        "The share is 0.5 and the mode 'active'": (other, {"share": 0.5}),
        "Invalid enum value": (other, {"mode": "both"}),
    }
    for message, (bundle, wish) in wishes.items():
        with pytest.raises(CallError, match=f"(?i){message}"):
            deploy(agent, bundle, **wish)
    with pytest.raises(CallError, match="no model 'huge'") as error:
        deploy(agent, one, model="huge")
    assert error.value.status == 404
    assert serving(agent) == "1.0"


@pytest.mark.parametrize("wish", [{}, {"mode": "shadow"}], ids=["active", "shadow"])
def test_what_the_end_cuts_off_is_not_refused(start_agent: StartAgent, tmp_path: Path, wish: dict):
    """It says nothing of the version, which may be deployed again."""
    good = sleeper_bundle(tmp_path, version="1.0")
    agent = start_agent("--bundle", good, sleeper=True).ready()
    loads = sleeper_bundle(tmp_path, version="2.0", options={"load": "hang"})
    problems: list[CallError] = []

    def ask() -> None:
        with pytest.raises(CallError) as error:
            deploy(agent, loads, "sleeper", **wish)
        problems.append(error.value)

    caller = threading.Thread(target=ask)
    caller.start()
    agent.wait_for_nap()
    assert agent.terminate() == 0
    caller.join()
    assert len(problems) == 1
    ledger = json.loads((tmp_path / "state" / FILE).read_text())["models"][0]
    assert ledger["refused"] == {}
    agent = start_agent("--bundle", good, sleeper=True, state=tmp_path / "state")
    assert serving(agent.ready(), "sleeper") == "1.0"
    assert record(agent, "sleeper")["candidate"] is None, "nobody waits for it any more"


def test_a_guest_that_the_end_cuts_off_is_back_after_it(start_agent: StartAgent, tmp_path: Path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    good = sleeper_bundle(tmp_path, version="1.0")
    guest = sleeper_bundle(tmp_path, version="2.0", options={"gate": str(gate)})

    def opened() -> None:
        os.close(os.open(gate, os.O_WRONLY))

    agent = start_agent("--bundle", good, sleeper=True).ready()
    opener = threading.Thread(target=opened)
    opener.start()
    deploy(agent, guest, "sleeper", mode="shadow")
    opener.join()
    assert agent.terminate() == 0
    agent = start_agent("--bundle", good, sleeper=True).ready()
    while len(agent.workers()) < 2:  # the guest's, which loads until the gate is opened
        pass
    assert agent.terminate() == 0
    found = json.loads((tmp_path / "state" / FILE).read_text())["models"][0]
    assert found["guest"]["release"]["version"] == "2.0"
    assert found["refused"] == {}


def test_a_swap_under_load_drops_no_request(start_agent: StartAgent, one: Path, tmp_path: Path):
    """Callers without a pause, while versions come and go."""
    agent = start_agent("--bundle", one, "--deadline", 20_000).ready()
    stop = threading.Event()
    answered: list[int] = []
    problems: list[Exception] = []

    def caller() -> None:
        count = 0
        try:
            with Client(agent.url, "tiny") as client:
                while not stop.is_set():
                    found = client.infer({"image": FRAME[0]})["scores"]
                    np.testing.assert_allclose(found, scores(FRAME), atol=1e-4)
                    count += 1
        except Exception as error:  # noqa: BLE001 - shown by the test
            problems.append(error)
        answered.append(count)

    callers = [threading.Thread(target=caller) for _ in range(3)]
    for thread in callers:
        thread.start()
    for version in ("2.0", "3.0"):
        deploy(agent, tiny_bundle(tmp_path, version=version))
    with Client(agent.socket, timeout_s=PATIENCE_S) as client:
        client.post("/edgeml/v1/models/tiny/rollback", {})
    stop.set()
    for thread in callers:
        thread.join()
    assert problems == []
    assert min(answered) > 0
    # A request is counted after its answer, so the last ones only by the end for certain.
    assert agent.terminate() == 0
    assert in_windows(agent) == {"served": sum(answered)}


def test_a_healthy_version_is_confirmed(start_agent: StartAgent, one: Path, tmp_path: Path):
    config = with_healthy(tmp_path, one, 0.2)
    agent = start_agent("--config", config).ready()
    agent.wait_for("confirmed .*version=1.0")
    assert record(agent)["active"]["confirmed"]
    assert agent.terminate() == 0


def test_a_version_whose_workers_keep_dying_is_rolled_back(start_agent: StartAgent, tmp_path: Path):
    good = sleeper_bundle(tmp_path, version="1.0")
    bad = sleeper_bundle(tmp_path, version="2.0")
    agent = start_agent("--bundle", good, sleeper=True).ready()
    deploy(agent, bad, "sleeper")
    for count in range(1, 5):
        (worker,) = agent.workers()
        os.kill(worker, signal.SIGKILL)
        agent.wait_for(" worker-died ", count=count)
        if count < 4:
            agent.wait_for(" replaced ", count=count)
    agent.wait_for("rolled back .*version=1.0")
    agent.wait_for(" serving .*version=1.0", count=2)
    assert serving(agent, "sleeper") == "1.0"
    assert "lost 4 workers" in next(iter(record(agent, "sleeper")["refused"].values()))


def test_a_version_that_is_given_up_is_rolled_back(start_agent: StartAgent, tmp_path: Path):
    sleeper_bundle(tmp_path, version="1.0")
    config = tmp_path / "agent.toml"
    config.write_text('[[model]]\nbundle = "sleeper-1.0.edgeml"\nrestarts = 0\n')
    agent = start_agent("--config", config, sleeper=True).ready()
    deploy(agent, sleeper_bundle(tmp_path, version="2.0"), "sleeper")
    (worker,) = agent.workers()
    os.kill(worker, signal.SIGKILL)
    agent.wait_for(" given-up ")
    agent.wait_for("rolled back .*version=1.0")
    agent.wait_for(" serving .*version=1.0", count=2)
    assert serving(agent, "sleeper") == "1.0"


def test_an_agent_that_is_killed_again_and_again_ends_in_the_confirmed_version(
    start_agent: StartAgent, one: Path, two: Path, tmp_path: Path
):
    agent = start_agent("--config", with_healthy(tmp_path, one, 0.2)).ready()
    agent.wait_for("confirmed .*version=1.0")
    assert agent.terminate() == 0
    config = with_healthy(tmp_path, two, 3600)
    for _ in range(4):
        agent = start_agent("--config", config).ready()
        assert serving(agent) == "2.0"
        agent.terminate(signal.SIGKILL)
    agent = start_agent("--config", config).ready()
    assert serving(agent) == "1.0"
    assert "started 3 times" in agent.wait_for("rolled back")


def test_a_damaged_ledger_is_moved_aside(start_agent: StartAgent, one: Path, tmp_path: Path):
    assert start_agent("--bundle", one).ready().terminate() == 0
    ledger = tmp_path / "state" / FILE
    ledger.write_bytes(ledger.read_bytes()[:100])
    agent = start_agent("--bundle", one).ready()
    assert serving(agent) == "1.0"
    assert (tmp_path / "state" / "ledger.damaged").exists()
    agent.wait_for("ledger damaged")


def test_a_damaged_bundle_in_the_store_gives_way_to_the_one_before(
    start_agent: StartAgent, one: Path, two: Path, tmp_path: Path
):
    agent = start_agent("--bundle", one).ready()
    deploy(agent, two)
    assert agent.terminate() == 0
    store = tmp_path / "state" / BUNDLES
    active = json.loads((tmp_path / "state" / FILE).read_text())["models"][0]["active"]["bundle"]
    path = store / f"{active}.edgeml"
    path.write_bytes(path.read_bytes().replace(b"Softmax", b"Softmix"))
    agent = start_agent("--bundle", one).ready()
    assert serving(agent) == "1.0"
    agent.wait_for("rolled back .*version=1.0")


def test_the_store_keeps_only_what_may_be_needed(
    start_agent: StartAgent, one: Path, tmp_path: Path
):
    agent = start_agent("--bundle", one).ready()
    for version in ("2.0", "3.0", "4.0"):
        deploy(agent, tiny_bundle(tmp_path, version=version))
    kept = {path.stem for path in (tmp_path / "state" / BUNDLES).iterdir()}
    found = record(agent)
    assert kept == {found["active"]["bundle"], found["fallback"]["bundle"]}


def test_several_models_are_changed_one_by_one(start_agent: StartAgent, tmp_path: Path):
    left = tiny_bundle(tmp_path, name="left", version="1.0", budgets=Budgets(deadline_ms=900))
    right = tiny_bundle(tmp_path, name="right", version="1.0", targets=("tflite",))
    agent = start_agent("--bundle", left, "--bundle", right).ready()
    deploy(agent, tiny_bundle(tmp_path, name="right", version="2.0"), "right")
    assert serving(agent, "left") == "1.0"
    assert serving(agent, "right") == "2.0"
    assert agent.terminate() == 0
    agent = start_agent("--bundle", left, "--bundle", right).ready()
    assert (serving(agent, "left"), serving(agent, "right")) == ("1.0", "2.0")
