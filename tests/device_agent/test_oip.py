"""The Open Inference Protocol as others speak it: ``tritonclient``, unchanged."""

from __future__ import annotations

import contextlib
import gzip
import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from support.agents import PATIENCE_S, AgentProcess, StartAgent
from support.bundles import tiny_bundle
from support.weights import images, scores
from tritonclient.utils import InferenceServerException

from edgeml.device_agent.local import browsers, oip
from edgeml.device_agent.local.client import CallError, Client
from edgeml.errors import SourceError

IMAGE = images(1)[:1]


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AgentProcess]:
    folder = tmp_path_factory.mktemp("oip")
    agent = AgentProcess("--bundle", tiny_bundle(folder), state=folder / "state").ready()
    yield agent
    assert agent.terminate() == 0


@pytest.fixture
def server(agent: AgentProcess) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(agent.url.removeprefix("http://")) as server:
        yield server


def image_input(*, binary: bool, array: np.ndarray = IMAGE) -> triton.InferInput:
    given = triton.InferInput("image", list(array.shape), "FP32")
    given.set_data_from_numpy(array, binary_data=binary)
    return given


def test_health_and_metadata(server: triton.InferenceServerClient):
    assert server.is_server_live()
    assert server.is_server_ready()
    assert server.is_model_ready("tiny")
    assert server.is_model_ready("tiny", "1.0")
    assert not server.is_model_ready("tiny", "2.0")
    assert server.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    assert server.get_model_metadata("tiny") == {
        "name": "tiny",
        "versions": ["1.0"],
        "platform": "edgeml_onnx-fp32",
        "inputs": [{"name": "image", "datatype": "FP32", "shape": [1, 1, 8, 8]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [1, 4]}],
    }


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
def test_tensors_as_bytes_and_as_json(
    server: triton.InferenceServerClient, binary_in: bool, binary_out: bool
):
    wanted = triton.InferRequestedOutput("scores", binary_data=binary_out)
    result = server.infer(
        "tiny", [image_input(binary=binary_in)], outputs=[wanted], request_id="frame 7"
    )
    np.testing.assert_allclose(result.as_numpy("scores"), scores(IMAGE), atol=1e-5)
    assert result.get_response()["id"] == "frame 7"
    assert result.get_response()["model_version"] == "1.0"
    assert ("data" in result.get_output("scores")) is not binary_out


def test_all_outputs_when_none_is_named(server: triton.InferenceServerClient):
    result = server.infer("tiny", [image_input(binary=True)], model_version="1.0")
    np.testing.assert_allclose(result.as_numpy("scores"), scores(IMAGE), atol=1e-5)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_request_that_is_packed(server: triton.InferenceServerClient, algorithm: str):
    result = server.infer(
        "tiny",
        [image_input(binary=True)],
        request_compression_algorithm=algorithm,
        response_compression_algorithm=algorithm,
    )
    np.testing.assert_allclose(result.as_numpy("scores"), scores(IMAGE), atol=1e-5)


def test_requests_side_by_side(agent: AgentProcess):
    frames = images(12, seed=3)
    address = agent.url.removeprefix("http://")
    with triton.InferenceServerClient(address, concurrency=4) as server:
        underway = [
            server.async_infer("tiny", [image_input(binary=True, array=frame[np.newaxis])])
            for frame in frames
        ]
        found = np.concatenate([each.get_result().as_numpy("scores") for each in underway])
    np.testing.assert_allclose(found, scores(frames), atol=1e-5)


REFUSED = {
    "model": (lambda server: server.infer("huge", [image_input(binary=True)]), "404", "no model"),
    "version": (
        lambda server: server.infer("tiny", [image_input(binary=True)], model_version="3"),
        "404",
        "no version '3'. Expected 1.0",
    ),
    "shape": (
        lambda server: server.infer("tiny", [image_input(binary=True, array=IMAGE[..., :4])]),
        "400",
        "Expected [1, 1, 8, 8]",
    ),
    "output": (
        lambda server: server.infer(
            "tiny", [image_input(binary=True)], outputs=[triton.InferRequestedOutput("boxes")]
        ),
        "400",
        "Output 'boxes' was asked for. Expected of scores",
    ),
    "classes": (
        lambda server: server.infer(
            "tiny",
            [image_input(binary=True)],
            outputs=[triton.InferRequestedOutput("scores", class_count=2)],
        ),
        "400",
        "asked for as a classification",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_reaches_the_client_in_words(server: triton.InferenceServerClient, what: str):
    call, status, message = REFUSED[what]
    with pytest.raises(InferenceServerException) as caught:
        call(server)
    assert caught.value.status() == status
    assert message in caught.value.message()


HEAD = (
    b'{"inputs":[{"name":"image","shape":[1,1,8,8],"datatype":"FP32",'
    b'"parameters":{"binary_data_size":256}}]}'
)
WHOLE = {oip.HEADER_LENGTH: str(len(HEAD))}
BAD_BYTES = {
    "too few": (HEAD + bytes(255), WHOLE, 400, "256 bytes, 255 are left"),
    "too many": (HEAD + bytes(257), WHOLE, 400, "1 bytes after the JSON belong to no input"),
    "no length": (HEAD + bytes(256), {}, 400, "The request cannot be read"),
    "length of words": (HEAD, {oip.HEADER_LENGTH: "ten"}, 400, "Expected a number"),
    "length past the end": (HEAD, {oip.HEADER_LENGTH: "9999"}, 400, "the body has"),
    "length of nothing": (HEAD, {oip.HEADER_LENGTH: "0"}, 400, "the body has"),
    "no gzip": (HEAD, {"Content-Encoding": "gzip"}, 400, "The body is no gzip"),
    "half a gzip": (
        gzip.compress(HEAD + bytes(256))[:-9],
        {"Content-Encoding": "gzip", **WHOLE},
        400,
        "ends in the middle of its gzip",
    ),
    "another packing": (HEAD, {"Content-Encoding": "br"}, 415, "Expected gzip"),
    "a bomb": (gzip.compress(bytes(2**26 + 1)), {"Content-Encoding": "gzip"}, 413, "At most"),
}


@pytest.mark.parametrize("what", BAD_BYTES)
def test_bytes_that_are_not_of_the_protocol(agent: AgentProcess, what: str):
    body, headers, status, message = BAD_BYTES[what]
    address = agent.url.removeprefix("http://")
    connection = http.client.HTTPConnection(address)
    connection.request("POST", "/v2/models/tiny/infer", body, headers)
    response = connection.getresponse()
    assert response.status == status
    assert message in json.loads(response.read())["error"]
    connection.close()
    with Client(agent.url, "tiny") as client:  # no harm was done
        assert client.ready()


def calls(agent: AgentProcess, method: str, **headers: str) -> tuple[int, str]:
    """Status and body of a call with these headers and no others, but what HTTP needs."""
    path, body = {
        "GET": ("/v2/health/live", None),
        "POST": ("/v2/models/tiny/infer", HEAD + bytes(256)),
    }[method]
    connection = http.client.HTTPConnection(agent.url.removeprefix("http://"), timeout=PATIENCE_S)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=True)
        if body is not None:
            headers |= {"Content-Length": str(len(body)), oip.HEADER_LENGTH: str(len(HEAD))}
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_web_page_is_no_caller(agent: AgentProcess, method: str):
    """A site whose name was made to point to this machine, and a page of another origin."""
    for host in ("evil.example", "evil.example:8700", "localhost.evil.example", "127.0.0.1.nip.io"):
        status, body = calls(agent, method, Host=host)
        assert status == 403
        assert "Expected localhost or an IP address" in body
    for origin in ("https://evil.example", "http://localhost:3000", "null"):
        status, body = calls(agent, method, Host="localhost:8700", Origin=origin)
        assert status == 403
        assert "comes from a web page" in body


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_calls_by_an_address_is_a_caller(agent: AgentProcess, method: str):
    for host in ("127.0.0.1:8700", "localhost", "LocalHost:1", "[::1]:8700", "192.168.1.7"):
        assert calls(agent, method, Host=host)[0] == 200
    own = {"Host": "localhost:8700", "Origin": "http://localhost:8700"}
    assert calls(agent, method, **own)[0] == 200


@given(st.text(), st.text())
def test_no_header_whatever_does_more_than_be_refused(host: str, origin: str):
    if not browsers.refusal(host=host, origin=origin):
        assert origin.lower() in {"", f"http://{host}".lower()}


@contextlib.contextmanager
def half_a_call(agent: AgentProcess, *headers: str) -> Iterator[tuple[socket.socket, Any]]:
    """The head of a request, and what comes back."""
    host, port = agent.url.removeprefix("http://").split(":")
    lines = ["POST /v2/models/tiny/infer HTTP/1.1", "Host: localhost", *headers, "", ""]
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as link:
        link.sendall("\r\n".join(lines).encode("latin-1"))
        yield link, link.makefile("rb")


def test_a_caller_that_waits_to_hear_that_its_body_is_welcome(agent: AgentProcess):
    """As curl does above a megabyte, for a second."""
    length = f"Content-Length: {len(HEAD) + 256}"
    with half_a_call(
        agent, length, f"{oip.HEADER_LENGTH}: {len(HEAD)}", "Expect: 100-continue"
    ) as (link, answer):
        assert answer.readline() == b"HTTP/1.1 100 Continue\r\n"
        assert answer.readline() == b"\r\n"
        link.sendall(HEAD + bytes(256))
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"


def test_a_body_that_is_too_long_is_not_welcome(agent: AgentProcess):
    with half_a_call(agent, f"Content-Length: {2**40}", "Expect: 100-continue") as (_, answer):
        assert answer.readline().startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("length", ["", "-1", "ten", "+5", "\u00b2", "9" * 5000])
def test_a_length_that_is_no_number_is_answered(agent: AgentProcess, length: str):
    with half_a_call(agent, f"Content-Length: {length}") as (_, answer):
        assert answer.readline().startswith(b"HTTP/1.1 411 ")
    with half_a_call(agent, "Content-Length: 0", f"{oip.HEADER_LENGTH}: {length}") as (_, answer):
        assert answer.readline().startswith(b"HTTP/1.1 400 ")


TENSORS = st.dictionaries(
    st.text(min_size=1, max_size=5),
    st.sampled_from(sorted(oip.DATATYPES.values())).flatmap(
        lambda dtype: arrays.arrays(
            dtype,
            arrays.array_shapes(max_dims=3, max_side=4),
            elements={"allow_nan": False} if dtype.startswith("float") else None,
        )
    ),
    min_size=1,
    max_size=3,
)


@given(TENSORS)
def test_what_is_encoded_as_bytes_is_decoded_bit_by_bit(tensors: dict[str, np.ndarray]):
    encoded = oip.encode_request(tensors)
    _, found = oip.decode_request(encoded.body, header_length=encoded.header_length)
    assert found.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


@given(st.binary(max_size=200), st.integers(-1, 250))
def test_no_bytes_whatever_do_more_than_be_refused(body: bytes, header_length: int):
    with contextlib.suppress(SourceError):
        oip.decode_request(body, header_length=header_length)


def test_a_token_guards_every_call(start_agent: StartAgent, tmp_path: Path):
    (tmp_path / "token").write_text("open sesame\n")
    config = tmp_path / "agent.toml"
    config.write_text(f'token_file = "token"\n[[model]]\nbundle = "{tiny_bundle(tmp_path)}"\n')
    agent = start_agent("--config", config, "--http", "0.0.0.0:0").ready()
    url = agent.url.replace("0.0.0.0", "127.0.0.1")
    address = url.removeprefix("http://")
    for token in ("", "open barley"):
        with (
            Client(url, "tiny", token=token) as client,
            pytest.raises(CallError, match="no valid token") as caught,
        ):
            client.infer({"image": IMAGE})
        assert caught.value.status == 401
    with Client(url, "tiny", token="open sesame") as client:
        assert client.infer({"image": IMAGE}).keys() == {"scores"}
    headers = {"Authorization": "Bearer open sesame"}
    with triton.InferenceServerClient(address) as server:
        assert not server.is_server_live()
        assert server.is_server_live(headers=headers)
        # As Prometheus scrapes a device, and a reverse proxy passes on what a page asks.
        named = {"Host": "device.example", "Origin": "https://pages.example"}
        assert not server.is_server_live(headers=named)
        assert server.is_server_live(headers=headers | named)
        server.infer("tiny", [image_input(binary=True)], headers=headers)


def test_an_empty_token_is_no_token(start_agent: StartAgent, tmp_path: Path):
    (tmp_path / "token").write_text("\n")
    (tmp_path / "agent.toml").write_text('token_file = "token"\n')
    agent = start_agent("--config", tmp_path / "agent.toml")
    assert agent.end() == 2
    assert "token is empty" in agent.lines[-1]


def test_without_a_token_nobody_changes_versions_over_http(agent: AgentProcess):
    with Client(agent.url) as client:
        for change in ("versions", "rollback"):
            with pytest.raises(CallError, match="over the agent's socket, or over HTTP") as caught:
                client.post(f"/edgeml/v1/models/tiny/{change}", {"bundle": "/nowhere"})
            assert caught.value.status == 403
