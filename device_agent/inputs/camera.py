"""Frames of a camera or a video, through OpenCV: V4L2 devices, RTSP and other URLs, files."""

from __future__ import annotations

import importlib
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.device_agent.config import CameraInput
from edgeml.device_agent.inputs.sensors import Frame, image_input
from edgeml.device_agent.inputs.source import Source
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.errors import SourceError, UsageError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

_DEVICE = re.compile(r"/dev/video(\d+)")


class Camera(Source):
    """Args:
        config: of the camera.
        service: the model.
        answer: told of each request that has ended.

    Raises:
        UsageError: OpenCV is not installed, or the model takes no frames of a camera.
    """

    def __init__(
        self, config: CameraInput, service: Service, answer: Callable[[Ticket], None]
    ) -> None:
        super().__init__(_shown(config.source), service, newest=config.newest, answer=answer)
        self._config = config
        self._cv2 = _opencv()
        self._input = image_input(service.manifest, config.order)
        self._is_file = Path(config.source).is_file()

    def read(self) -> bool:
        """Frames until the camera is gone, or the file is at its end."""
        video = self._open()
        due = 0.0
        try:
            while not self.ending.is_set():
                there, frame = video.read()
                if not there:
                    break
                now = time.monotonic()
                if now >= due:
                    due = now + self._config.every_s
                    self._take(np.asarray(frame, dtype=np.uint8))
        finally:
            video.release()
        if not self._is_file and not self.ending.is_set():
            raise SourceError(f"{self._name} gives no more frames", expected="a camera that stays")
        return self._is_file

    def _open(self) -> Any:
        cv2 = self._cv2
        device = _DEVICE.fullmatch(self._config.source)
        # Without a timeout of its own FFmpeg waits for a camera that is gone for ever.
        waits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, 5000, cv2.CAP_PROP_READ_TIMEOUT_MSEC, 5000]
        if device:
            video = cv2.VideoCapture(int(device[1]), cv2.CAP_V4L2)
            video.set(cv2.CAP_PROP_FRAME_WIDTH, self._input.width)
            video.set(cv2.CAP_PROP_FRAME_HEIGHT, self._input.height)
            video.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        else:
            video = cv2.VideoCapture(self._config.source, cv2.CAP_FFMPEG, waits)
        if not video.isOpened():
            raise SourceError(
                f"{self._name} cannot be opened",
                expected="a V4L2 device, a URL or a file that OpenCV reads",
            )
        return video

    def _take(self, frame: Frame) -> None:
        size = (self._input.width, self._input.height)
        if self._config.fit == "stretch" and frame.shape[1::-1] != size:
            frame = self._cv2.resize(frame, size, interpolation=self._cv2.INTER_AREA)
        try:
            self.offer(self._input.of(frame))
        except SourceError as error:
            self.unfit(error)


def _opencv() -> Any:
    try:
        return importlib.import_module("cv2")
    except ImportError as error:
        raise UsageError(
            f"A camera is read through OpenCV, which cannot be imported ({error})",
            remedy="pip install 'edgeml[camera]'",
        ) from error


def _shown(source: str) -> str:
    """Without the password that a URL may hold."""
    return re.sub(r"//[^/@]*@", "//…@", source)
