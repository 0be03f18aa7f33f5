"""Sound as requests: a WAV file once through, or ALSA by ``arecord``, which most systems have."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shutil
import subprocess
import wave
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from edgeml.device_agent import logs
from edgeml.device_agent.config import AudioInput
from edgeml.device_agent.inputs.sensors import Cutter, Pcm, mono, sound_input
from edgeml.device_agent.inputs.source import Source
from edgeml.device_agent.serving.tickets import Ticket
from edgeml.errors import SourceError, UsageError

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service

_ALSA = "alsa:"
_LAST_WORDS = 300
"""Bytes of what arecord said that are told."""

_OVERRUN = re.compile(rb"overrun ?!!!")
"""How a line of arecord's begins where the device's buffer was full, and sound was lost."""

_BLOCK = 4096
"""Samples read at once: a quarter of a second at 16 kHz."""


class Audio(Source):
    """Args:
        config: of the source.
        service: the model.
        answer: told of each request that has ended.

    Raises:
        UsageError: the model takes no sound, or ALSA's program is missing.
    """

    def __init__(
        self, config: AudioInput, service: Service, answer: Callable[[Ticket], None]
    ) -> None:
        super().__init__(config.source, service, newest=config.newest, answer=answer)
        self._config = config
        self._input = sound_input(service.manifest, config.rate)
        self._recorder: subprocess.Popen[bytes] | None = None
        self._overruns = 0
        self._program = ""
        if config.source.startswith(_ALSA):
            self._program = shutil.which("arecord") or ""
            if not self._program:
                raise UsageError(
                    f"{config.source} is recorded by arecord, which is not installed",
                    remedy="apt-get install alsa-utils",
                )

    def read(self) -> bool:
        """Sound until it ends."""
        cutter = Cutter(self._input.samples, self._config.hop)
        if self._program:
            self._record(cutter)
            return False
        self._play(cutter)
        return True

    def interrupt(self) -> None:
        """End the recording."""
        recorder = self._recorder
        if recorder is not None:
            recorder.terminate()

    def _play(self, cutter: Cutter) -> None:
        try:
            with wave.open(self._config.source, "rb") as file:
                self._check(file)
                while not self.ending.is_set() and (block := file.readframes(_BLOCK)):
                    samples = np.frombuffer(block, dtype="<i2").reshape(-1, file.getnchannels())
                    self._take(cutter, mono(samples.astype(np.int16), self._config.channels))
        except (OSError, EOFError, wave.Error) as error:
            raise SourceError(
                f"{self._name} cannot be read: {error or 'it ends too early'}",
                expected="a WAV file of 16-bit PCM",
            ) from error

    def _check(self, file: wave.Wave_read) -> None:
        found = f"{8 * file.getsampwidth()} bits at {file.getframerate()} Hz"
        if file.getsampwidth() != 2 or file.getframerate() != self._input.rate:
            raise SourceError(
                f"{self._name} has {found}", expected=f"16 bits at {self._input.rate} Hz"
            )

    def _record(self, cutter: Cutter) -> None:
        device = self._config.source.removeprefix(_ALSA)
        form = ("-t", "raw", "-f", "S16_LE", "-c", "1", "-r", str(self._input.rate))
        # Should the agent be killed, arecord ends with the pipe that it writes to.
        with subprocess.Popen(
            [self._program, "-q", "-D", device, *form],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "LC_ALL": "C"},  # what it says is understood here
        ) as recorder:
            self._recorder = recorder
            try:
                if self.ending.is_set():
                    recorder.terminate()
                words = self._listen(recorder, cutter)
            finally:
                self._recorder = None
                with contextlib.suppress(OSError):
                    recorder.kill()
        if not self.ending.is_set():
            raise SourceError(
                f"{self._name} gives no more sound: {words or 'arecord ended'}",
                expected="a device that stays",
            )

    def _listen(self, recorder: subprocess.Popen[bytes], cutter: Cutter) -> str:
        """Take its sound until it ends; return the last line of what it said. Both are read all the
        time: it would stand still once nobody takes its warnings."""
        assert recorder.stdout is not None
        assert recorder.stderr is not None
        sound, warnings = recorder.stdout.fileno(), recorder.stderr.fileno()
        said = _Said()
        half = b""  # a read may end in the middle of a sample
        streams = [sound, warnings]
        while streams:
            for stream in select.select(streams, [], [])[0]:
                block = os.read(stream, 2 * _BLOCK)
                if not block:
                    streams.remove(stream)
                elif stream == warnings:
                    self._tell_overruns(said.take(block))
                else:
                    whole, half = _whole_samples(half + block)
                    self._take(cutter, whole)
        return said.last

    def _tell_overruns(self, count: int) -> None:
        """Count them; say so at the 1st, 2nd, 4th, 8th …: a device that is too slow has them all
        the time."""
        if not count:
            return
        before, self._overruns = self._overruns, self._overruns + count
        self._service.overran(count)
        if self._overruns.bit_length() != before.bit_length():
            logs.warn(
                "sound lost",
                model=self._service.name,
                source=self._name,
                overruns=self._overruns,
                reason="nobody read it in time",
            )

    def _take(self, cutter: Cutter, samples: Pcm) -> None:
        for piece in cutter.cut(samples):
            if self.ending.is_set():
                return
            self.offer(self._input.of(piece))


class _Said:
    """What arecord writes beside the sound, which comes in pieces."""

    def __init__(self) -> None:
        self._line = b""
        self._rest = b""

    @property
    def last(self) -> str:
        """Its last line."""
        return (self._rest.strip() or self._line).decode(errors="replace").strip()

    def take(self, block: bytes) -> int:
        """Overruns in what it says now."""
        *lines, rest = (self._rest + block).split(b"\n")
        self._rest = rest[-_LAST_WORDS:]
        for line in lines:
            if line.strip():
                self._line = line[-_LAST_WORDS:]
        return sum(_OVERRUN.match(line) is not None for line in lines)


def _whole_samples(recorded: bytes) -> tuple[Pcm, bytes]:
    cut = len(recorded) // 2 * 2
    return np.frombuffer(recorded[:cut], dtype="<i2").astype(np.int16), recorded[cut:]
