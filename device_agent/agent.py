"""The agent as a whole: what is started in which order, the loop, and the end in order.

:func:`run` is what ``edgeml agent run`` calls. Models come up on their own threads while the
uplink connects, so that a model that is refused is still heard of.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.device_agent import config as bounds
from edgeml.device_agent import heap, logs
from edgeml.device_agent.awake import Awake
from edgeml.device_agent.bell import Bell
from edgeml.device_agent.closing import Closing
from edgeml.device_agent.commands.actions import Captures, actions
from edgeml.device_agent.commands.executor import Commands
from edgeml.device_agent.commands.record import CommandRecord
from edgeml.device_agent.config import Config, device_name, split_address
from edgeml.device_agent.facts import new_boot
from edgeml.device_agent.inputs.folder import FolderSource
from edgeml.device_agent.inputs.frames import handlers
from edgeml.device_agent.inputs.opening import open_sources
from edgeml.device_agent.inputs.source import Source
from edgeml.device_agent.install.disk import Disk
from edgeml.device_agent.install.installer import Installer
from edgeml.device_agent.install.ledger import Ledger
from edgeml.device_agent.install.remains import Remains
from edgeml.device_agent.install.shelf import Shelf
from edgeml.device_agent.install.versions import Shelved
from edgeml.device_agent.limits.limiter import find_limiter
from edgeml.device_agent.limits.watch import Watch
from edgeml.device_agent.local.local_api import LocalApi
from edgeml.device_agent.local.routes import Routes
from edgeml.device_agent.local.socket_address import NAME as SOCKET_NAME
from edgeml.device_agent.local.socket_api import SocketApi
from edgeml.device_agent.local.token import read_token
from edgeml.device_agent.notify import Notifier
from edgeml.device_agent.overview import Overview
from edgeml.device_agent.serving.room import Room
from edgeml.device_agent.serving.standing import Details, Hooks
from edgeml.device_agent.state import StateFolder
from edgeml.device_agent.uplink.outbox import Outbox
from edgeml.errors import AgentError, UsageError
from edgeml.telemetry import Event, Topics, Window

if TYPE_CHECKING:
    from edgeml.device_agent.serving.service import Service
    from edgeml.device_agent.uplink.uplink import Uplink

_NEVER = float("inf")


def run(config: Config) -> bool:
    """Run until SIGTERM or SIGINT, then end in order.

    Returns:
        Whether the agent is to start anew: it was asked to, over the broker.

    Raises:
        UsageError: the configuration contradicts itself.
        AgentError: the state folder or the address is taken, or no model serves.
    """
    # A caller's thread waits for the interpreter up to this long while statistics are computed.
    sys.setswitchinterval(bounds.SWITCH_S)
    bell = Bell()
    bell.end_on(signal.SIGTERM, signal.SIGINT)
    with ExitStack() as stack:
        agent = Agent(config, bell, stack)
        agent.run()
    return agent.restarts


class Agent:
    """Everything of one run.

    Args:
        config: complete.
        bell: wakes the main thread, and ends it.
        stack: closes what is opened, last first.
    """

    def __init__(self, config: Config, bell: Bell, stack: ExitStack) -> None:
        self._config = config
        self._bell = bell
        self._boot = new_boot()
        self._notifier = Notifier(os.environ)
        self.restarts = False
        """Whether another run is to follow."""
        self._progress_at = 0.0
        """When to say again how far something is that loads."""
        self._uplink: Uplink | None = None
        self._topics = Topics(config.site, device_name(config))
        self._state = stack.enter_context(StateFolder(_state_path(config)))
        self._outbox = stack.enter_context(
            Outbox(
                self._state.path,
                boot=self._boot,
                limit_bytes=int(config.outbox_mb * 1e6),
                events_kept=bounds.EVENTS_KEPT,
            )
        )
        self._watch = Watch(bounds.MEMORY_POLL_S, find_limiter())
        disk = Disk()
        remains = Remains(
            disk,
            artifacts=self._state.artifacts,
            profiles=self._state.profiles,
            engines=self._state.engines,
        )
        shelf = Shelf(Ledger(self._state.path, disk), remains, self._event)
        self._installer = Installer(shelf, healthy_s=config.healthy_s, tell=self._event)
        awake = Awake(config.awake_ms / 1000)
        stack.callback(awake.close)
        hooks = Hooks(event=self._service_event, changed=self._changed, asked=awake.stir)
        workers_mb = config.workers_mb
        room = Room(
            int(workers_mb * 1e6) if workers_mb else None, used_bytes=self._watch.resident_bytes
        )
        self._services: list[Service] = []
        if config.model:  # an agent that waits for its first one does without two megabytes
            from edgeml.device_agent.serving.service import Service

            self._services = [
                Service(
                    model,
                    boot=self._boot,
                    artifacts=self._state.artifacts,
                    logs_folder=self._state.logs,
                    profiles=self._state.profiles,
                    engines=self._state.engines,
                    watch=self._watch,
                    room=room,
                    hooks=hooks,
                    versions=Shelved(shelf, model.bundle),
                )
                for model in config.model
            ]
        self._overview = Overview(
            config,
            topics=self._topics,
            boot=self._boot,
            services=self._services,
            outbox=self._outbox,
            disk=self._state.disk,
            connected=lambda: self._uplink is not None and self._uplink.connected,
            awake=lambda: awake.state,
        )
        routes = Routes(self._by_name, self._overview.now, self._installer)
        self._api = None
        if config.http:
            host, port = split_address(config.http, what="local call's")
            self._api = LocalApi(host, port, routes, token=read_token(config.token_file))
        self._socket = SocketApi(
            config.socket or self._state.path / SOCKET_NAME,
            routes,
            mode=int(config.socket_mode, 8),
            group=config.socket_group,
        )
        stack.callback(self._socket.stop)
        self._sources: list[FolderSource | Source] = []
        self._captures = Captures()
        self._closing = Closing(
            self._services, self._outbox, closed=self._window_closed, tell=self._event
        )
        self._commands = Commands(
            actions(
                services=self._by_name,
                status=self._overview.now,
                captures=self._captures,
                restart=self._restart,
            ),
            allowed=config.commands.allow,
            record=stack.enter_context(
                CommandRecord(self._state.path, kept=bounds.COMMANDS_KEPT, wall_ms=_wall_ms())
            ),
            boot=self._boot,
            publish=self._publish_answer,
            waiting=bounds.MAX_COMMANDS,
        )
        if config.broker is not None:
            from edgeml.device_agent.uplink.uplink import Uplink  # more than a megabyte

            self._uplink = Uplink(
                config.broker,
                topics=self._topics,
                outbox=self._outbox,
                status=self._overview.birth,
                reported=self._overview.reported,
                frames=handlers(
                    list(zip(config.model, self._services, strict=True)), self._publish_result
                ),
                commands=self._commands.offer,
            )
        elif any(model.mqtt for model in config.model):
            raise UsageError(
                "A model takes frames from MQTT, and there is no [broker]",
                remedy="Add the table, or --broker HOST:PORT.",
            )

    def run(self) -> None:
        """Come up, go on until told to end, end in order."""
        try:
            self._come_up()
            while not self._bell.ended:
                self._bell.wait(self._patience())
                self._closing.turn(only_due=True)
                self._tell_progress(time.monotonic())
                self._notifier.alive(time.monotonic())
        finally:
            self._end()

    def _come_up(self) -> None:
        self._closing.tell_damage()
        self._watch.start()
        if self._uplink is not None:
            self._uplink.start()
        if self._api is not None:
            self._api.start()
        self._socket.start()
        for service in self._services:
            service.start()
        while not self._bell.ended and not all(s.settled.is_set() for s in self._services):
            now = time.monotonic()
            self._notifier.alive(now, starting=True)
            self._tell_progress(now)
            self._bell.wait(_until(min(self._notifier.due, self._progress_due), now))
        if self._bell.ended:
            return
        self._refuse_namesakes()
        for service in self._services:
            self._installer.serves(service.state.name, service.changes)
        self._installer.start()
        active = [s for s in self._services if s.state.phase == "active"]
        if self._services and not active:
            raise AgentError("; ".join(s.state.error.rstrip(".") for s in self._services))
        self._sources = open_sources(
            list(zip(self._config.model, self._services, strict=True)),
            state=self._state.path,
            publish=self._publish_result,
        )
        for source in self._sources:
            source.start()
        heap.settle()
        states = [service.state for service in active]
        logs.info(
            "ready",
            http=self._api.url if self._api else "off",
            socket=self._socket.path,
            model=",".join(state.name for state in states) or "none",
            artifact=",".join(state.artifact for state in states) or "none",
            memory_limit=",".join(state.memory_limit for state in states) or "none",
            site=self._topics.site,
            device=self._topics.device,
            boot=self._boot,
        )
        self._commands.start()
        serving = ", ".join(f"{s.name} {s.version} ({s.artifact})" for s in states)
        self._notifier.ready(f"serving {serving}" if serving else "no model")

    def _refuse_namesakes(self) -> None:
        names = [service.state.name for service in self._services]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(
                    f"Two bundles hold a model called '{name}'",
                    expected="each model once",
                    remedy="Run a second agent, as another device, for the other version.",
                )

    def _end(self) -> None:
        """Inputs stop, queued work ends, the last windows are stored and sent, workers go.

        All are told before any is waited for: one after another, a few that hang would take longer
        than a service manager waits, and an input may wait for one of them.
        """
        logs.info("ending")
        self._notifier.stopping(bounds.end_s(self._config))
        self._installer.end()
        for source in self._sources:
            source.end()
        for service in self._services:
            service.end(self._config.drain_s)
        for service in self._services:
            service.stop()
        for source in self._sources:
            source.join()
        self._installer.join()
        if self._api is not None:
            self._api.drain(self._config.drain_s)
            self._api.stop()
        self._socket.stop()
        self._commands.stop(self._config.drain_s)
        self._closing.turn(only_due=False)
        self._captures.end()
        if self._uplink is not None:
            self._uplink.flush(self._config.drain_s)
            self._uplink.stop()
        self._watch.stop()
        logs.info("ended")

    def _patience(self) -> float | None:
        now = time.monotonic()
        return _until(min(self._notifier.due, self._progress_due, self._closing.due(now)), now)

    def _window_closed(self, window: Window) -> None:
        self._overview.windows[window.model] += 1
        self._captures.closed(window)
        if self._uplink is not None:
            self._uplink.wake()

    @property
    def _progress_due(self) -> float:
        building = any(service.building for service in self._services)
        return self._progress_at if building else _NEVER

    def _tell_progress(self, now: float) -> None:
        if self._progress_due <= now:
            self._progress_at = now + bounds.PROGRESS_S
            if self._uplink is not None:
                self._uplink.changed()

    def _service_event(self, kind: str, message: str, model: str, details: Details) -> None:
        self._event(kind, message, model, details)
        self._installer.noticed(kind, model)

    def _event(self, kind: str, message: str, model: str, details: Details) -> None:
        event = Event(
            boot=self._boot,
            kind=kind,
            time_ms=_wall_ms(),
            message=message[:4096],
            model=model,
            details=details,
        )
        try:
            self._outbox.add_event(event)
        except AgentError as error:
            logs.warn("event not stored", kind=kind, reason=error)
        if self._uplink is not None:
            self._uplink.wake()

    def _changed(self) -> None:
        if self._uplink is not None:
            self._uplink.changed()
        self._bell.ring()

    def _by_name(self) -> dict[str, Service]:
        return {service.name: service for service in self._services}

    def _restart(self) -> None:
        self.restarts = True
        self._bell.end()

    def _publish_answer(self, payload: bytes) -> None:
        if self._uplink is not None:
            self._uplink.publish_result(self._topics.leaf("cmd/result"), lambda: payload, qos=1)

    def _publish_result(self, topic: str, encode: Callable[[], bytes]) -> None:
        if self._uplink is not None:
            self._uplink.publish_result(topic, encode)


def _state_path(config: Config) -> Path:
    if config.state is not None:
        return config.state.absolute()
    import platformdirs  # an agent that is told its folder does without

    name = f"{config.site}-{device_name(config)}"
    return platformdirs.user_state_path("edgeml") / "agent" / name


def _until(due: float, now: float) -> float | None:
    """Seconds to wait; None for ever."""
    return None if due == _NEVER else max(0.0, due - now)


def _wall_ms() -> int:
    return time.time_ns() // 10**6
