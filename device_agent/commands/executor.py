"""Carries commands out, one after another on a thread of its own, and answers each.

An action is a function that is given the command and a way to answer; it may answer later, from
another thread, as one that waits for statistics windows does.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal, NamedTuple

from edgeml.device_agent import logs
from edgeml.device_agent.commands.decision import refusal
from edgeml.device_agent.commands.record import CommandRecord, Earlier
from edgeml.errors import AgentError, EdgemlError, TelemetryError
from edgeml.telemetry import Command, CommandResult, decode, encode

Document = dict[str, Any]


class Answer:
    """The way to answer one command. From any thread."""

    def __init__(self, command: Command, commands: Commands) -> None:
        self._command = command
        self._commands = commands

    def done(self, document: Document, *, part: int = 1, parts: int = 1) -> None:
        """It was carried out, with this to show for it."""
        self._commands.say(self._command, "done", document=document, part=part, parts=parts)

    def failed(self, message: str) -> None:
        """It was not."""
        self._commands.say(self._command, "failed", message)


Action = Callable[[Command, Answer], None]


class _Came(NamedTuple):
    payload: bytes
    retained: bool
    at: float


class Commands:
    """Args:
    actions: by kind of command.
    allowed: the kinds that the configuration permits.
    record: of what was carried out.
    boot: of this run.
    publish: sends an answer.
    waiting: commands that may wait.
    """

    def __init__(
        self,
        actions: Mapping[str, Action],
        *,
        allowed: Collection[str],
        record: CommandRecord,
        boot: str,
        publish: Callable[[bytes], None],
        waiting: int,
    ) -> None:
        self._actions = actions
        self._allowed = allowed
        self._record = record
        self._boot = boot
        self._publish = publish
        self._came: queue.Queue[_Came | None] = queue.Queue(waiting)
        self._thread = threading.Thread(target=self._run, name="commands", daemon=True)

    def start(self) -> None:
        """Begin to carry out."""
        self._thread.start()

    def offer(self, payload: bytes, retained: bool) -> None:
        """Something came on the topic. From any thread; does not wait."""
        try:
            self._came.put_nowait(_Came(payload, retained, time.monotonic()))
        except queue.Full:
            logs.warn("command dropped", reason="too many wait")

    def stop(self, timeout_s: float) -> None:
        """Begin no more; wait for the one at hand, at most this long."""
        try:
            self._came.put(None, timeout=timeout_s)
        except queue.Full:
            return
        if self._thread.ident is not None:
            self._thread.join(timeout_s)

    def say(
        self,
        command: Command,
        outcome: Literal["done", "refused", "failed", "repeated"],
        message: str = "",
        *,
        document: Document | None = None,
        part: int = 1,
        parts: int = 1,
    ) -> None:
        """Answer a command, and note the last of its answers."""
        logs.info("command", id=command.id, kind=command.kind, outcome=outcome, reason=message)
        result = CommandResult(
            id=command.id,
            kind=command.kind,
            boot=self._boot,
            time_ms=time.time_ns() // 10**6,
            outcome=outcome,
            message=message[:4096],
            part=part,
            parts=parts,
            document=document or {},
        )
        try:
            payload = encode(result)
        except TelemetryError as error:
            self.say(command, "failed", f"The answer is too long: {error}")
            return
        if part == parts and outcome in {"done", "failed"}:
            try:
                self._record.finish(command.id, payload)
            except AgentError as error:  # it stays known that it was begun
                logs.warn("command's answer not noted", id=command.id, reason=error)
        self._publish(payload)

    def _run(self) -> None:
        while (came := self._came.get()) is not None:
            self._take(came)

    def _take(self, came: _Came) -> None:
        try:
            self._decide(decode(came.payload, Command), came)
        except TelemetryError as error:
            logs.warn("bad command", reason=error)
        except Exception:  # noqa: BLE001 - a fault of ours must not end them all
            logs.LOG.exception("command fault")

    def _decide(self, command: Command, came: _Came) -> None:
        now = time.time_ns() // 10**6
        reason = refusal(
            command,
            kinds=self._actions,
            allowed=self._allowed,
            retained=came.retained,
            wall_ms=now,
            waited_s=time.monotonic() - came.at,
        )
        if reason:
            self.say(command, "refused", reason)
            return
        try:
            found = self._record.begin(command.id, issued_ms=command.issued_ms, wall_ms=now)
        except AgentError as error:
            self.say(command, "refused", str(error))
            return
        if isinstance(found, Earlier):
            self._repeat(command, found)
        elif found:
            self.say(command, "refused", found)
        else:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        answer = Answer(command, self)
        try:
            self._actions[command.kind](command, answer)
        except EdgemlError as error:
            answer.failed(str(error))
        except Exception as error:
            answer.failed(f"A fault of the agent: {error}")
            raise

    def _repeat(self, command: Command, earlier: Earlier) -> None:
        """Say again what was said then, and do nothing."""
        if earlier.result is None:
            message = (
                f"The command was begun at {earlier.begun_ms} and is not done, or the agent ended "
                "before it was. It is not begun again."
            )
            self.say(command, "repeated", message)
            return
        then = decode(earlier.result, CommandResult)
        message = f"It was carried out at {earlier.begun_ms} ({then.outcome}). {then.message}"
        self.say(command, "repeated", message.strip(), document=then.document)
