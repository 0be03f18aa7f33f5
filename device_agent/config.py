"""Every setting and every bound of the agent: its name, its default and the reason for it.

:mod:`~edgeml.device_agent.config_file` reads them from a file.
"""

from __future__ import annotations

import platform
import re
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edgeml.errors import UsageError

Seconds = Annotated[float, Meta(gt=0)]
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
Topic = Annotated[str, Meta(min_length=1, max_length=1024)]
Port = Annotated[int, Meta(ge=0, le=65535)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of every table of the file."""


class MqttInput(Section, frozen=True):
    """Frames from an MQTT topic: ``.npy`` bytes, or JSON of the Open Inference Protocol."""

    topic: Topic
    """May hold wildcards."""
    newest: bool = True
    """Of each topic only the newest frame waits, as a camera wants it. False: all queue up."""
    results: str = ""
    """Topic for the answers, as the protocol's JSON; none where it is empty."""


class FolderInput(Section, frozen=True):
    """Samples from files (``.npy``, ``.npz``) that somebody moves into a folder.

    A file must be whole when its name appears: write it under a name that starts with a dot or has
    another ending, then rename it.
    """

    path: Path
    after: Literal["delete", "move", "keep"] = "move"
    """What becomes of a file that was served: deleted, moved to ``done/``, or left. One that was
    not served is moved to ``failed/`` in any case but ``keep``."""
    results: Path | None = None
    """Folder for the answers, ``NAME.npz`` each; none where it is not given."""
    poll_s: Seconds = 0.2
    """How often the folder is looked at. Polling works on every file system, network ones too, and
    a listing of a short folder costs some microseconds."""


class CameraInput(Section, frozen=True):
    """Frames from a camera or a video, through OpenCV (``edgeml[camera]``)."""

    source: Annotated[str, Meta(min_length=1)]
    """A V4L2 device (``/dev/video0``), a URL (``rtsp://…``) or a video file."""
    newest: bool = True
    """Of a camera only the newest frame waits. False: every frame is served, as of a file."""
    order: Literal["", "rgb", "bgr", "grey"] = ""
    """Of the channels that the model takes. Default: as the bundle's preprocessing says."""
    fit: Literal["refuse", "stretch"] = "refuse"
    """A frame of another size than the model's input: counted as failed, or stretched to it."""
    every_s: Annotated[float, Meta(ge=0)] = 0.0
    """Least time between two frames that are offered; 0 for all that come."""
    results: str = ""
    """MQTT topic for the answers, as the protocol's JSON; none where it is empty."""


class AudioInput(Section, frozen=True):
    """Sound from a WAV file, or from ALSA by its program ``arecord``."""

    source: Annotated[str, Meta(min_length=1)]
    """A file, or ``alsa:`` and a device, such as ``alsa:hw:1,0`` or ``alsa:default``."""
    rate: Annotated[int, Meta(ge=0)] = 0
    """Samples a second that the model takes. Default: as the bundle's preprocessing says."""
    channels: Literal["refuse", "first", "average"] = "refuse"
    """What becomes of a file with several channels."""
    hop: Annotated[int, Meta(ge=0)] = 0
    """Samples from the beginning of one input to that of the next; 0 for one after another."""
    newest: bool = False
    """Of the inputs only the newest waits."""
    results: str = ""
    """MQTT topic for the answers, as the protocol's JSON; none where it is empty."""


class ModelConfig(Section, frozen=True):
    """One bundle to serve."""

    bundle: Path
    target: str = ""
    """An artifact's id, or a target; empty lets the agent choose."""
    deadline_ms: Annotated[float, Meta(gt=0)] | None = None
    """From arrival to answer. Default: the bundle's budget, or else :data:`DEADLINE_MS`."""
    grace_ms: Annotated[float, Meta(ge=0)] = 100.0
    """After a deadline that passed, for the inference to be broken off or to end by itself; then
    the worker is killed. Waiting is cheaper than the half second and more that a new one takes."""
    memory_mb: Annotated[float, Meta(gt=0)] | None = None
    """Resident set of the worker, in 10^6 bytes. Default: the bundle's budget, or else none."""
    queue: Annotated[int, Meta(ge=0, le=10_000)] = 8
    """Requests that may wait. Few: on a small device what waits long is late anyway."""
    threads: Annotated[int, Meta(ge=1, le=256)] = 1
    """Of the runtime. One, as in the measurements that the bundle carries."""
    window_s: Seconds = 60.0
    """Length of a statistics window: a drift within minutes, at 1,440 messages a day."""
    statistics_share: Annotated[float, Meta(gt=0, le=1)] = 0.02
    """Of one core's time that statistics may take; 1 for a look at every sample, whatever it costs.
    Forty 224x224 frames a second are under this default on a server's core. What is over it is
    served and counted, and not looked at."""
    start_timeout_s: Seconds = 120.0
    """To load the model. TensorRT builds its engine then, which takes minutes on a Jetson: raise
    it there."""
    restarts: Annotated[int, Meta(ge=0)] = 10
    """Workers started again within :data:`RESTART_SPAN_S`, further and further apart; then the
    model is given up. A missed deadline or two an hour never comes near that."""
    standby: bool = False
    """Keep a second worker, loaded and warm, where there is room for it: it takes over at once from
    one that is lost. Costs its memory once more, which small devices lack."""
    ladder: bool = True
    """Serve with a cheaper artifact of the bundle while the device is overloaded, short of memory
    or hot. No effect where ``target`` names one."""
    ladder_s: Seconds = 10.0
    """How long overload, memory pressure or heat must last before a step down."""
    quiet_s: Seconds = 60.0
    """And quiet before a step up; doubles when that did not hold."""
    hot_c: Annotated[float, Meta(gt=10, lt=150)] = 85.0
    """Of the hottest thermal zone, °C. Boards throttle from 80 to 95."""
    mqtt: tuple[MqttInput, ...] = ()
    folder: tuple[FolderInput, ...] = ()
    camera: tuple[CameraInput, ...] = ()
    audio: tuple[AudioInput, ...] = ()


class BrokerConfig(Section, frozen=True):
    """The MQTT broker."""

    host: str = "127.0.0.1"
    port: Port = 1883
    username: str = ""
    password_file: Path | None = None
    """A file, not a value: configuration files are shown around."""
    tls: bool = False
    ca_file: Path | None = None
    """Certificates to trust; the system's where it is not given."""
    keepalive_s: Annotated[int, Meta(ge=5, le=3600)] = 30
    """The broker publishes the last will after 1.5 times this."""
    connect_timeout_s: Seconds = 5.0
    answer_s: Seconds = 1.0
    """For the broker's answer at the first try; doubles while there is none, up to
    ``retry_cap_s``. Some 3.1.1 brokers neither refuse MQTT 5 nor hang up: they misread it, and
    wait for more."""
    retry_s: Seconds = 0.5
    """Bound of the first random delay before a new connection; it doubles."""
    retry_cap_s: Seconds = 30.0
    """Longest bound: a device is back within half a minute of its broker."""
    in_flight: Annotated[int, Meta(ge=1, le=1000)] = 16
    """Windows on their way at once. Under Mosquitto's default of 20 in flight for a client."""
    backlog_s: Seconds = 0.25
    """Mean of the random delay between two windows that waited while there was no connection; new
    ones go at once. A day of minutes is back in six minutes, and a thousand devices that return
    together are 4,000 windows a second, not a million at once."""
    resend_s: Seconds = 10.0
    """A window that the collector has not acknowledged is sent again; the interval doubles."""
    resend_cap_s: Seconds = 600.0


CommandKind = Literal["status", "logs", "restart", "profile", "capture"]


class CommandsConfig(Section, frozen=True):
    """What may be asked of this device over MQTT. Who may ask is the broker's to say."""

    allow: tuple[CommandKind, ...] = ()
    """Nothing, unless it stands here: a broker's password must not be enough to stop a model."""


class Config(Section, frozen=True):
    """The whole file."""

    site: Name = "default"
    device: str = ""
    """Default: the machine's name."""
    state: Path | None = None
    """Folder for the outbox, the artifacts and logs. Default: the user's state folder."""
    http: str = "127.0.0.1:8700"
    """Address of the local call; port 0 takes a free one, "" switches it off. Another one than
    loopback needs a token."""
    token_file: Path | None = None
    """Holds the token that callers over HTTP must show; none where it is not given."""
    socket: Path | None = None
    """The Unix socket of the local call. Default: ``agent.sock`` in the state folder."""
    socket_mode: Annotated[str, Meta(pattern=r"^0?[0-7]{3}$")] = "0600"
    """Permissions of the socket, octal: who may write to it may call."""
    socket_group: str = ""
    """Its group; the agent's own where it is empty."""
    outbox_mb: Annotated[float, Meta(gt=0)] = 32.0
    """What may wait for the collector, 10^6 bytes. A window of twenty statistics has about 1.5 kB:
    two weeks of minutes. When it is full neighbouring windows are merged."""
    workers_mb: Annotated[float, Meta(gt=0)] | None = None
    """What all workers together may have resident, 10^6 bytes; one more is started beside another
    only within it. Default: what the machine has to spare, and a control group around the agent."""
    healthy_s: Seconds = 300.0
    """A new version that serves for so long without losing a worker is confirmed; until then a
    crash loop ends in the last one that was."""
    drain_s: Seconds = 5.0
    """At the end: for requests that wait, of all models at the same time, and again for what the
    broker has not taken yet. Docker kills after 10 s; systemd is told to wait: :func:`end_s`."""
    awake_ms: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    """Keep the processor's cores from sleeping for so long after each request, all of them: the
    next one and its answer are not held up by wakes (:mod:`~edgeml.device_agent.awake`). Costs
    power while requests come, so it is off unless a person asks for it."""
    broker: BrokerConfig | None = None
    """No table, no MQTT: windows wait in the outbox."""
    commands: CommandsConfig = CommandsConfig()
    model: tuple[ModelConfig, ...] = ()


DEADLINE_MS = 1000.0
"""Deadline of a model for which neither configuration nor bundle has one: none at all would leave a
stuck runtime for ever."""

PROBE_S = 1.0
"""An idle model takes a request against the prediction after this long without one."""

MEMORY_POLL_S = 0.02
"""How often resident sets are read. Under a limit of 200 MB, 100 ms saw 241 and 500 ms 1,260 MB."""

RESTART_SPAN_S = 300.0
RESTART_BASE_S = 0.2
RESTART_CAP_S = 30.0
"""How long a restart counts; the delay before the second one in that time, and the longest."""

KEEP_S = 0.25
"""How often a model's keeper looks at memory, sensors and misses."""

STANDBY_REST_S = 30.0
"""After a second worker was lost or did not come up, before another try."""

CHANGE_WAIT_S = 1.0
"""For a change of versions to end, before another one is refused: what the agent does by itself, to
confirm and to remove, takes milliseconds."""

BUNDLE_DIGITS = 16
"""Of a bundle's SHA-256: what is extracted or measured of it is named after them."""

PROFILE_KEEP_S = 600.0
"""How often what serving shows of an artifact's cost goes to the disk."""

EVENTS_KEPT = 1000
"""Events that wait for the broker, in the outbox. Some hundred bytes each."""

SWITCH_S = 0.0001
"""Python's turn of a thread while others wait; its default of 5 ms is longer than an inference."""

MAX_BODY = 64 * 2**20
"""Bytes of an HTTP request or an MQTT payload: a 1080p frame as JSON has about 40 MB."""

MAX_CALLERS = 32
"""Connections at once over HTTP, and as many over the socket, a thread each; the queue behind them
is shorter anyway."""

SHARED_BYTES = 256 * 2**20
"""Memory that all callers over the socket share with the agent together, outside of any model's
budget: forty 1080p frames."""

CALLER_IDLE_S = 60.0
"""A connection without a request is closed after this."""

PROGRESS_S = 2.0
"""How often the reported state says how far an artifact is that loads: a person watches it."""

ENVIRONMENT = {
    # What lies in the working folder must not be taken for a module.
    "PYTHONSAFEPATH": "1",
    # NumPy only moves data here; its thread pool is memory for nothing.
    "OPENBLAS_NUM_THREADS": "1",
}
"""Of agent and worker, over that of whoever started them."""

HEAP_ENVIRONMENT = {
    "MALLOC_MMAP_THRESHOLD_": str(8 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(16 * 2**20),
    "MALLOC_ARENA_MAX": "2",
}
"""Of the agent alone. The GNU library gives a frame's memory back to the kernel as soon as it is
free, and the next one is had page by page again: 379 µs a 224x224x3 frame, copied and joined with
another, instead of 21. With this up to 16 MB in each of two places are kept for the next frame. A
worker has a budget, and no use for it."""

REOPEN_S = 1.0
REOPEN_CAP_S = 30.0
"""First and longest pause before a camera or a microphone that is gone is opened again."""

MAX_COMMANDS = 16
"""Commands that wait; more are refused."""

COMMANDS_KEPT = 10_000
"""Commands that a device remembers, so as to do none twice. Some hundred bytes each."""

LOG_LINES = 1000
"""Lines of the log that are kept in memory for the command ``logs``."""

MAX_RESULTS = 64
"""Answers to MQTT frames that wait for the connection; older ones go: nobody wants them late."""


def device_name(config: Config) -> str:
    """The device's name, or one made of the machine's."""
    if config.device:
        return config.device
    return re.sub(r"[^A-Za-z0-9._-]", "-", platform.node() or "device")[:64]


def end_s(config: Config) -> float:
    """Within which the agent's end is over, in seconds, or a service manager may kill it: models,
    answers over HTTP, the command at hand and the broker each have ``drain_s``, one after another;
    the rest is for workers to go and for a slow disk."""
    return 4 * config.drain_s + 10


def split_address(text: str, *, what: str, default_port: int | None = None) -> tuple[str, int]:
    """``HOST:PORT`` (or ``[HOST]:PORT``) taken apart.

    Raises:
        UsageError: it is something else.
    """
    host, colon, port = text.rpartition(":")
    if not colon and default_port is not None:
        return text, default_port
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdigit() or int(port) > 65535:
        raise UsageError(f"The {what} address is {text!r}", expected="HOST:PORT")
    return host, int(port)
