"""A camera on RTSP (RFC 2326), on loopback: what a client needs to be given a stream over TCP.

Frames go as they are (RFC 4175), so a test can ask for them to the pixel.
"""

from __future__ import annotations

import base64
import socketserver
import struct
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import cast

import numpy as np

USER, PASSWORD = "user", "secret"
_CREDENTIALS = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
_FRAME_TICKS = 90_000 // 25
_TYPE = 96
"""Of the payload: the first of those that a session may give a meaning to."""


class Camera(socketserver.ThreadingTCPServer):
    daemon_threads = True
    frames: Sequence[np.ndarray]

    def url(self) -> str:
        return f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{self.server_address[1]}/stream"


@contextmanager
def camera(frames: Sequence[np.ndarray]) -> Generator[Camera]:
    """A camera that shows each client these frames, RGB uint8 [height, width, 3], and goes."""
    with Camera(("127.0.0.1", 0), _Connection) as server:
        server.frames = frames
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while request := self._request():
            method, headers = request
            if headers.get("authorization") != _CREDENTIALS:
                self._answer("401 Unauthorized", headers, 'WWW-Authenticate: Basic realm="camera"')
            elif method == "OPTIONS":
                self._answer("200 OK", headers, "Public: DESCRIBE, SETUP, PLAY")
            elif method == "DESCRIBE":
                self._answer("200 OK", headers, "Content-Type: application/sdp", body=self._sdp())
            elif method == "SETUP" and "TCP" in headers["transport"]:
                transport = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1"
                self._answer("200 OK", headers, transport, "Session: 1")
            elif method == "SETUP":
                self._answer("461 Unsupported Transport", headers)
            elif method == "PLAY":
                self._answer("200 OK", headers, "Session: 1")
                self._play()
                return
            else:
                self._answer("501 Not Implemented", headers)

    @property
    def _camera(self) -> Camera:
        return cast("Camera", self.server)

    def _request(self) -> tuple[str, dict[str, str]] | None:
        lines: list[str] = []
        while line := self.rfile.readline().decode().strip():
            lines.append(line)
        if not lines:
            return None
        pairs = (line.partition(":") for line in lines[1:])
        return lines[0].split()[0], {name.lower(): value.strip() for name, _, value in pairs}

    def _answer(self, status: str, asked: dict[str, str], *headers: str, body: str = "") -> None:
        lines = [f"RTSP/1.0 {status}", f"CSeq: {asked['cseq']}", *headers]
        lines += [f"Content-Length: {len(body)}", "", body]
        self.wfile.write("\r\n".join(lines).encode())

    def _sdp(self) -> str:
        height, width, _ = self._camera.frames[0].shape
        shape = f"sampling=RGB; width={width}; height={height}; depth=8; colorimetry=BT601-5"
        lines = ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=camera", "c=IN IP4 127.0.0.1", "t=0 0"]
        lines += [f"m=video 0 RTP/AVP {_TYPE}", f"a=rtpmap:{_TYPE} raw/90000"]
        return "\r\n".join([*lines, f"a=fmtp:{_TYPE} {shape}", ""])

    def _play(self) -> None:
        for number, frame in enumerate(self._camera.frames):
            packet = _packet(number, frame)
            self.wfile.write(struct.pack("!cBH", b"$", 0, len(packet)) + packet)


def _packet(number: int, frame: np.ndarray) -> bytes:
    """A whole frame, each line with its length, its number and whether another one follows."""
    height, width, channels = frame.shape
    marker = 0x80  # the last packet of its frame
    time = (number + 1) * _FRAME_TICKS  # FFmpeg drops a first frame at 0
    head = struct.pack("!BBHII", 0x80, marker | _TYPE, number, time, 1)
    lines = b"".join(
        struct.pack("!HHH", width * channels, row, 0x8000 * (row < height - 1))
        for row in range(height)
    )
    return head + struct.pack("!H", 0) + lines + frame.tobytes()
