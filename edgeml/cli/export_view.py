"""How an export looks: its stages while they go on, then one table or one JSON document."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from edgeml import errors
from edgeml.api.result import Gathering
from edgeml.cli.shared import console, human_bytes, write_table
from edgeml.exporter.events import (
    AnyEvent,
    Collapse,
    Done,
    Failure,
    Note,
    Row,
    Stage,
)
from edgeml.exporter.events import Progress as Step


class StageView:
    """Shows stages on standard error: a live line on a terminal, a line a stage elsewhere."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._live = self._console.is_terminal
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[now]}"),
            console=self._console,
            transient=True,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._stage: Stage | None = None
        self._since = 0.0

    def __enter__(self) -> StageView:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: AnyEvent) -> None:
        """Take in one event."""
        self._progress.start()  # not earlier: the installation of a toolchain has its own line
        match event:
            case Stage():
                self._finish_stage()
                self._stage, self._since = event, time.monotonic()
                self._task = self._progress.add_task(event.title, total=event.steps or None, now="")
            case Step():
                if self._task is not None:
                    self._progress.update(self._task, now=event.text, completed=event.step or None)
            case Note():
                what = " ".join(filter(None, (event.target, event.precision)))
                self._print(f"  note: {what + ': ' if what else ''}{event.text}")
            case Done() | Failure():
                self._finish_stage(failed=isinstance(event, Failure))
            case _:
                pass

    def _finish_stage(self, *, failed: bool = False) -> None:
        if self._stage is None:
            return
        if self._task is not None:
            self._progress.remove_task(self._task)
        sign = "✗" if failed else "✓"
        self._print(f"{sign} {self._stage.title} ({time.monotonic() - self._since:.1f} s)")
        self._stage, self._task = None, None

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=not self._live)


class Result(Gathering):
    """What an export came to, and how it is printed."""

    def write_table(self) -> None:
        """Print the artifacts, what was refused and where the bundle is."""
        if self.rows:
            self._write_rows()
        for row in self.rows:
            for text in filter(None, (_unchecked(row), row.note, row.step, _certainty(row))):
                sys.stdout.write(f"{row.target} {_precision(row)}: {text}\n")
        for parted in self.partings:
            sys.stdout.write(f"{parted.target} {parted.precision}: {parted.text}.\n")
        for collapse in self.collapses:
            _write_collapse(collapse)
        # Where all were refused, the error says why.
        for refusal in () if isinstance(self.error, errors.RefusedError) else self.refusals:
            what = " ".join(filter(None, (refusal.target, refusal.precision)))
            sys.stdout.write(f"{what} was refused: {refusal.reason} {refusal.remedy}\n")
        if self.done is not None:
            accuracy = self.done.source_accuracy
            if accuracy is not None:
                metric = _HEADINGS.get(self.done.metric, self.done.metric) or "accuracy"
                sys.stdout.write(f"The source model itself: {metric} {_accuracy(accuracy)}\n")
            sys.stdout.write(f"{self.done.bundle} ({human_bytes(self.done.bytes)})\n")

    def _write_rows(self) -> None:
        machine = ""
        if self.done is not None and self.done.machine:
            machine = f"Measured on {self.done.machine} ({self.done.isa}), one core"
        named = next((row.metric for row in self.rows if row.accuracy is not None), "")
        judged = _HEADINGS.get(named, named) if named else "agreement"
        numbers = ("size", judged, "cosine", "max abs", "p50 ms", "p99 ms", "peak MB")
        write_table(
            ("target", "precision", *numbers, "front", "chosen"),
            [
                (
                    row.target,
                    _precision(row),
                    human_bytes(row.bytes),
                    _accuracy(row.accuracy if named else row.agreement),
                    _number(row.cosine, ".5f"),
                    _number(row.max_abs, ".3g"),
                    _number(row.p50_ms, ".3f"),
                    _number(row.p99_ms, ".3f"),
                    _number(row.peak_rss_mb, ".0f"),
                    "●" if row.front else "",
                    _choice(row),
                )
                for row in self.rows
            ],
            title=machine,
            right=numbers,
            spare=("max abs", "p99 ms", "cosine", "peak MB", "front"),
        )


_HEADINGS = {"top-1": "accuracy", "auc": "AUC", "f1": "F1"}


def _precision(row: Row) -> str:
    count = len(row.float_layers)
    return f"{row.precision} ({count} float)" if count else row.precision


def _choice(row: Row) -> str:
    if row.chosen:
        return "✓"
    if not row.passed:
        return "failed its check"
    over = ", ".join(text.partition(" ")[0] for text in row.missed)
    return f"over: {over}" if over else ""


def _unchecked(row: Row) -> str:
    return f"not checked: {row.not_checked}" if row.not_checked else ""


def _certainty(row: Row) -> str:
    """What is certain of a chosen one."""
    from edgeml.exporter.judging.certificate import sentence

    if not row.chosen or row.certificate is None:
        return ""
    return f"{row.certificate.metric}: {sentence(row.certificate)}"


def _accuracy(value: float | None) -> str | None:
    """Three places, or as many digits where that would show nothing."""
    if value is None or value == 0 or abs(value) >= 0.1:
        return _number(value, ".3f")
    return format(value, ".3g")


def _write_collapse(collapse: Collapse) -> None:
    what = f"{collapse.target} {collapse.precision}"
    numbers = ("SNR in", "SNR out")
    write_table(
        ("layer", "operator", *numbers, "from", ""),
        [
            (
                layer.name,
                layer.operator,
                _decibels(layer.input_snr_db),
                _decibels(layer.snr_db),
                ", ".join(filter(None, (layer.module, layer.line))),
                "← first bad" if layer.first else "← most noise" if layer.most else "",
            )
            for layer in collapse.layers
        ],
        title=f"{what}: the layers of {collapse.compared} that add most noise, in decibels",
        right=numbers,
    )
    sys.stdout.write(f"{what}: {collapse.text}.\n")


def _decibels(value: float | None) -> str:
    return "–" if value is None else f"{max(value, -99.0):.1f}"


def _number(value: float | None, form: str) -> str | None:
    return None if value is None else format(value, form)
