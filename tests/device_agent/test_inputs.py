"""Frames from MQTT topics and from folders."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.agents import PATIENCE_S, AgentProcess, Collector, StartAgent
from support.bundles import tiny_bundle
from support.services import serving
from support.weights import images, scores

from edgeml.device_agent.config import MAX_BODY
from edgeml.device_agent.inputs.frames import answering


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def oip_json(image: np.ndarray) -> bytes:
    tensor = {
        "name": "image",
        "shape": list(image.shape),
        "datatype": "FP32",
        "data": image.ravel().tolist(),
    }
    return json.dumps({"inputs": [tensor]}).encode()


def configure(folder: Path, text: str) -> Path:
    tiny_bundle(folder)
    path = folder / "agent.toml"
    path.write_text(f'[[model]]\nbundle = "tiny-1.0.edgeml"\nwindow_s = 0.2\n{text}')
    return path


@pytest.mark.parametrize("encode", [npy, oip_json])
def test_a_frame_on_a_topic_is_answered_on_another(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str], encode
):
    config = configure(tmp_path, '[[model.mqtt]]\ntopic = "cameras/+"\nresults = "results/cam"\n')
    agent = start_agent("--config", config, *at_plant).ready()
    agent.wait_for("INFO connected ")
    (image,) = images(1, seed=4)
    collector.publish("cameras/1", encode(image[np.newaxis]))
    collector.wait_for(lambda c: c.other, "answer")
    topic, payload = collector.other[0]
    answer = json.loads(payload)
    assert topic == "results/cam"
    assert answer["model_name"] == "tiny"
    np.testing.assert_allclose(
        answer["outputs"][0]["data"], scores(image[np.newaxis])[0], atol=1e-5
    )


@pytest.mark.parametrize(("newest", "served"), [("true", [1, 4, 6]), ("false", [1, 2, 3, 4, 5, 6])])
def test_of_each_topic_the_newest_frame_waits_or_every_one(
    start_agent: StartAgent,
    tmp_path: Path,
    collector: Collector,
    at_plant: list[str],
    newest: str,
    served: list[int],
):
    """One frame is at work while others come: of one camera three, of another two."""
    config = configure(
        tmp_path,
        f'deadline_ms = 600_000\n[[model.mqtt]]\ntopic = "cameras/+"\nnewest = {newest}\n'
        'results = "results/cam"\n',
    )
    agent = start_agent("--config", config, *at_plant).ready()
    agent.wait_for("INFO connected ")
    frames = images(6, seed=4)
    north, south = "cameras/north", "cameras/south"
    (worker,) = agent.workers()

    def now(**expected: object) -> None:
        patience = time.monotonic() + PATIENCE_S
        with agent.client() as client:
            while True:
                (model,) = client.get("/edgeml/v1/status")["models"]
                if all(model[name] == value for name, value in expected.items()):
                    return
                assert time.monotonic() < patience, model

    os.kill(worker, signal.SIGSTOP)
    collector.publish(north, npy(frames[0]))
    now(running=True, waiting=0)
    for topic, one in zip((north, north, north, south, south), frames[1:], strict=True):
        collector.publish(topic, npy(one))
    late = 6 - len(served)
    now(
        waiting=len(served) - 1,
        outcomes={"served": 0, "late": 0, "shed": late, "failed": 0},
    )
    os.kill(worker, signal.SIGCONT)
    collector.wait_for(lambda c: len(c.other) == len(served), "answers")
    answers = [json.loads(payload)["outputs"][0]["data"] for _, payload in collector.other]
    np.testing.assert_allclose(answers, scores(frames)[[n - 1 for n in served]], atol=1e-5)
    assert agent.terminate() == 0
    collector.wait_for(lambda c: c.outcomes.get("shed") == late, "what was shed")
    assert collector.outcomes["served"] == len(served)


def test_an_answer_is_encoded_by_whoever_sends_it(tmp_path: Path):
    """A large tensor as JSON may take longer than the model, whose thread has more to do."""
    waiting: list[tuple[str, Callable[[], bytes]]] = []
    with serving(tiny_bundle(tmp_path), tmp_path) as desk:
        answer = answering("results", desk.service, lambda *one: waiting.append(one))
        ticket = desk.service.submit({"image": images(1)}, done=answer)
        assert ticket.wait() == "served"
        (topic, encode) = waiting[0]
        expected = ticket.outputs["scores"].ravel().tolist()
    assert topic == "results"
    assert json.loads(encode())["outputs"][0]["data"] == pytest.approx(expected)


def with_header(text: bytes) -> bytes:
    """A .npy of format 1.0 that describes itself so."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def bomb() -> bytes:
    """A few kilobytes that unpack to more than is ever read."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as members:
        members.writestr("image.npy", npy(np.zeros(MAX_BODY + 1, np.uint8)))
    return buffer.getvalue()


BAD_FRAMES = {
    "nothing": b"",
    "nested without end": with_header(b"(" * 5000),
    "more than there is": with_header(
        b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000000), }\n"
    ),
    "a bomb": bomb(),
    "garbage": b"\x00\xff garbage",
    "half an array": npy(images(1))[:-10],
    "wrong shape": npy(np.zeros((3, 3), np.float32)),
    "wrong type": npy(np.zeros((1, 1, 8, 8), np.int16)),
    "pickled object": npy(np.array([{"a": 1}], dtype=object)),
}


def test_bad_frames_are_counted_and_dropped(
    start_agent: StartAgent, tmp_path: Path, collector: Collector, at_plant: list[str]
):
    config = configure(tmp_path, '[[model.mqtt]]\ntopic = "frames"\nnewest = false\n')
    agent = start_agent("--config", config, *at_plant).ready()
    agent.wait_for("INFO connected ")
    for payload in BAD_FRAMES.values():
        collector.publish("frames", payload)
    collector.publish("frames", npy(images(1)))
    agent.wait_for("bad frame", count=len(BAD_FRAMES))
    collector.wait_for(lambda c: c.rows == 1, "the good one")
    collector.wait_for(lambda c: c.outcomes["failed"] == len(BAD_FRAMES), "the bad ones")


def drop(folder: Path, name: str, content: bytes) -> Path:
    """Put a file into a folder as documented: under another name first, then renamed."""
    temporary = folder / f".{name}"
    temporary.write_bytes(content)
    temporary.rename(folder / name)
    return folder / name


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def folder_agent(
    start_agent: StartAgent, tmp_path: Path, after: str, *more: object
) -> AgentProcess:
    config = configure(
        tmp_path,
        f'[[model.folder]]\npath = "in"\nafter = "{after}"\nresults = "out"\npoll_s = 0.02\n',
    )
    return start_agent("--config", config, *more).ready()


def test_files_are_served_moved_and_answered(start_agent: StartAgent, tmp_path: Path):
    agent = folder_agent(start_agent, tmp_path, "move")
    frames = images(5, seed=9)
    drop(tmp_path / "in", "batch.npz", npz(image=frames))
    agent.wait_for("INFO window .*served=5")
    with np.load(tmp_path / "out" / "batch.npz") as answers:
        np.testing.assert_allclose(answers["scores"], scores(frames), atol=1e-5)
    assert agent.terminate() == 0
    assert (tmp_path / "in" / "done" / "batch.npz").exists()


def test_served_files_are_deleted_and_bad_ones_kept(start_agent: StartAgent, tmp_path: Path):
    agent = folder_agent(start_agent, tmp_path, "delete")
    drop(tmp_path / "in", "1-bad.npy", b"\x93NUMPY garbage")
    good = drop(tmp_path / "in", "2-good.npy", npy(images(1)[0]))
    agent.wait_for("file not served model=tiny path=.*1-bad.npy")
    agent.wait_for("served=1")
    assert agent.terminate() == 0
    assert not good.exists()
    assert (tmp_path / "in" / "failed" / "1-bad.npy").exists()


def served(agent: AgentProcess) -> int:
    """Requests, by all of its windows."""
    found = [re.search(r"INFO window .*served=(\d+)", line) for line in agent.lines]
    return sum(int(match[1]) for match in found if match)


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_no_bad_file_ends_the_folder(start_agent: StartAgent, tmp_path: Path, what: str):
    agent = folder_agent(start_agent, tmp_path, "move")
    drop(tmp_path / "in", "1-bad.npy", BAD_FRAMES[what])
    drop(tmp_path / "in", "2-good.npy", npy(images(1)[0]))
    agent.wait_for("file not served .*1-bad.npy")
    agent.wait_for("served=1")
    assert agent.terminate() == 0
    assert (tmp_path / "in" / "failed" / "1-bad.npy").exists()
    assert (tmp_path / "in" / "done" / "2-good.npy").exists()


def test_answers_that_cannot_be_written_are_told(start_agent: StartAgent, tmp_path: Path):
    """Its name is as long as a name can be, and answers are first written under a longer one."""
    agent = folder_agent(start_agent, tmp_path, "move")
    name = "a" * 251 + ".npy"
    file = tmp_path / name
    file.write_bytes(npy(images(1)[0]))
    file.rename(tmp_path / "in" / name)
    agent.wait_for("file not served .*Its answers cannot be written: File name too long")
    assert agent.terminate() == 0
    assert (tmp_path / "in" / "failed" / name).exists()
    assert served(agent) == 1
    assert not any((tmp_path / "out").iterdir())


def test_a_file_that_cannot_be_moved_away_is_taken_once(start_agent: StartAgent, tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "done").write_text("no folder")
    agent = folder_agent(start_agent, tmp_path, "move")
    for name in ("a.npy", "b.npy"):
        drop(tmp_path / "in", name, npy(images(1)[0]))
        agent.wait_for("WARNING folder .*File exists", count=1 + (name == "b.npy"))
    assert agent.terminate() == 0
    assert served(agent) == 2


def test_a_file_that_is_being_written_is_left_alone(start_agent: StartAgent, tmp_path: Path):
    agent = folder_agent(start_agent, tmp_path, "delete")
    half = tmp_path / "in" / ".half.npy"
    half.write_bytes(npy(images(1)[0])[:50])
    other = tmp_path / "in" / "half.npy.part"
    other.write_bytes(b"")
    drop(tmp_path / "in", "whole.npy", npy(images(1)[0]))
    agent.wait_for("served=1")
    assert agent.terminate() == 0
    assert half.exists()
    assert other.exists()


def test_kept_files_are_taken_once_over_restarts(start_agent: StartAgent, tmp_path: Path):
    first = folder_agent(start_agent, tmp_path, "keep")
    drop(tmp_path / "in", "a.npy", npy(images(1)[0]))
    first.wait_for("served=1")
    assert first.terminate() == 0
    second = start_agent("--config", tmp_path / "agent.toml").ready()
    drop(tmp_path / "in", "b.npy", npy(images(1)[0]))
    second.wait_for("served=1")
    assert second.terminate() == 0
    assert not any("served=2" in line for line in second.lines)
    assert {path.name for path in (tmp_path / "in").glob("*.npy")} == {"a.npy", "b.npy"}


def test_frames_from_mqtt_need_a_broker(start_agent: StartAgent, tmp_path: Path):
    config = configure(tmp_path, '[[model.mqtt]]\ntopic = "frames"\n')
    agent = start_agent("--config", config)
    assert agent.end() == 2
    assert "there is no [broker]" in agent.lines[-1]
