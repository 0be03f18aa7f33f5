"""The local call: a bundle is proved, then served; what does not fit is refused in words."""

from __future__ import annotations

import http.client
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.agents import StartAgent
from support.bundles import tiny_bundle
from support.weights import images, scores

from edgeml.device_agent.local.client import CallError, Client


@pytest.mark.parametrize("target", ["onnx", "tflite", "openvino"])
def test_each_runtime_serves_what_the_source_model_computes(
    start_agent: StartAgent, tmp_path: Path, target: str
):
    bundle = tiny_bundle(tmp_path, targets=("onnx", "tflite", "openvino"))
    agent = start_agent("--bundle", bundle, "--target", target).ready()
    assert f"artifact={target}-fp32" in agent.wait_for(" ready ")
    frames = images(5, seed=7)
    with agent.client() as client:
        found = np.concatenate(
            [client.infer({"image": one[np.newaxis]})["scores"] for one in frames]
        )
    np.testing.assert_allclose(found, scores(frames), atol=1e-5)


def test_the_protocol_describes_the_model(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path)).ready()
    with agent.client() as client:
        assert client.ready()
        assert client.metadata() == {
            "name": "tiny",
            "versions": ["1.0"],
            "platform": "edgeml_onnx-fp32",
            "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}],
            "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 4]}],
        }


@pytest.fixture(scope="module")
def calls(tmp_path_factory: pytest.TempPathFactory):
    """One agent for all the bad calls: none of them may harm it."""
    from support.agents import AgentProcess

    folder = tmp_path_factory.mktemp("calls")
    agent = AgentProcess("--bundle", tiny_bundle(folder), state=folder / "state").ready()
    yield agent.client()
    assert agent.terminate() == 0


IMAGE = images(1)[0]
BAD_CALLS = {
    "name": (
        {"picture": IMAGE},
        400,
        "The inputs given are 'picture'. Expected 'image'. Name each array",
    ),
    "shape": ({"image": IMAGE[:, :4]}, 400, r"shape \[1, 4, 8\]. Expected \[1, 1, 8, 8\]"),
    "dtype": ({"image": (IMAGE * 255).astype(np.uint8)}, 400, "dtype uint8. Expected float32"),
    "two samples": ({"image": images(2)}, 400, "2 samples were given in one call. Expected one"),
}


@pytest.mark.parametrize("what", BAD_CALLS)
def test_input_that_does_not_fit_says_what_was_found_and_expected(calls: Client, what: str):
    inputs, status, message = BAD_CALLS[what]
    with pytest.raises(CallError, match=message) as caught:
        calls.infer(inputs)
    assert caught.value.status == status
    assert calls.infer({"image": IMAGE}).keys() == {"scores"}


BAD_BODIES = {
    "no JSON": (b"\x00garbage", "The request cannot be read"),
    "no inputs": (b'{"id": "1"}', "missing required field `inputs`"),
    "too few values": (
        b'{"inputs":[{"name":"image","shape":[1,1,8,8],"datatype":"FP32","data":[1,2]}]}',
        "has 2 values. Expected 64",
    ),
    "words": (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"FP32","data":["x"]}]}',
        "no array of FP32",
    ),
    "unknown type": (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"FLOAT","data":[1]}]}',
        "datatype 'FLOAT'. Expected one of BOOL",
    ),
    "out of range": (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"UINT8","data":[256]}]}',
        "values outside 0 … 255",
    ),
    "fractions": (
        b'{"inputs":[{"name":"image","shape":[1],"datatype":"INT8","data":[0.5]}]}',
        "fractions among integers",
    ),
}


@pytest.mark.parametrize("what", BAD_BODIES)
def test_a_body_that_is_not_of_the_protocol(calls: Client, what: str):
    body, message = BAD_BODIES[what]
    status, answer = _post(calls, "/v2/models/tiny/infer", body)
    assert status == 400
    assert message in answer["error"]


def test_a_model_that_is_not_there(calls: Client):
    with pytest.raises(CallError, match="no model 'huge'. Expected one of: tiny") as caught:
        calls.infer({"image": IMAGE}, model="huge")
    assert caught.value.status == 404


def test_a_body_that_is_too_long_is_not_read(calls: Client):
    connection = _connection(calls)
    connection.putrequest("POST", "/v2/models/tiny/infer")
    connection.putheader("Content-Length", str(2**40))
    connection.endheaders()
    assert connection.getresponse().status == 413
    connection.close()


def _connection(client: Client) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(client._wire.address)


def _post(client: Client, path: str, body: bytes) -> tuple[int, dict[str, str]]:
    connection = _connection(client)
    connection.request("POST", path, body)
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    return response.status, answer


def test_a_bundle_with_a_changed_byte_is_refused(start_agent: StartAgent, tmp_path: Path):
    bundle = tiny_bundle(tmp_path)
    with zipfile.ZipFile(bundle) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(bundle, "w") as archive:  # a valid archive, with valid checksums
        for name, content in members.items():
            archive.writestr(name, content.replace(b"Softmax", b"Softmix"))
    agent = start_agent("--bundle", bundle)
    assert agent.end() == 1
    assert "The file was changed after the export: fetch it again" in agent.lines[-1]


def test_an_artifact_that_fails_its_proof_does_not_serve(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path, wrong_golden=True))
    assert agent.end() == 1
    assert "onnx-fp32: it does not reproduce the golden vectors: cosine" in agent.lines[-1]


def test_the_next_artifact_is_tried_when_one_cannot_load(start_agent: StartAgent, tmp_path: Path):
    bundle = _with_broken_onnx(tmp_path)
    agent = start_agent("--bundle", bundle).ready()
    assert "artifact=tflite-fp32" in agent.wait_for(" ready ")
    line = agent.wait_for("passed over model=tiny artifact=onnx-fp32")
    assert "cannot be read as an ONNX model" in line


def test_an_unknown_target_of_the_bundle(start_agent: StartAgent, tmp_path: Path):
    agent = start_agent("--bundle", tiny_bundle(tmp_path), "--target", "tflite")
    assert agent.end() == 1
    assert "holds no artifact 'tflite'. Expected one of onnx-fp32" in agent.lines[-1]


def test_the_local_call_stays_on_this_machine(start_agent: StartAgent):
    agent = start_agent("--http", "0.0.0.0:8080")
    assert agent.end() == 2
    assert "Expected 127.0.0.1" in agent.lines[-1]


def test_a_state_folder_has_one_agent(start_agent: StartAgent):
    first = start_agent().ready()
    second = start_agent()
    assert second.end() == 1
    assert f"belongs to a running agent, process {first.pid}" in second.lines[-1]


def _with_broken_onnx(folder: Path) -> Path:
    """A bundle whose hashes are right and whose best artifact is garbage all the same."""
    import msgspec

    from edgeml.bundle import describe, open_bundle, write_bundle

    whole = open_bundle(tiny_bundle(folder, targets=("onnx", "tflite")))
    members = {
        file.path: whole.read(file.path)
        for entry in whole.manifest.artifacts
        for file in entry.files
    }
    for name in ("golden.npz", "baseline.json"):
        members[name] = whole.read(name)
    onnx, tflite = whole.manifest.artifacts
    entry = onnx.files[0].path
    members[entry] = b"garbage"
    broken = msgspec.structs.replace(onnx, files=(describe(entry, b"garbage"),))
    manifest = msgspec.structs.replace(whole.manifest, artifacts=(broken, tflite))
    path = folder / "broken.edgeml"
    write_bundle(path, manifest, members)
    return path
