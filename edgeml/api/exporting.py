"""``edgeml.export`` and ``edgeml.exporting``: an export asked for from Python."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

import msgspec

from edgeml.api.result import ExportResult, Gathering
from edgeml.errors import SourceError, UsageError

if TYPE_CHECKING:
    from typing import Unpack

    from edgeml.api.options import Options
    from edgeml.api.samples import Written
    from edgeml.exporter.events import AnyEvent
    from edgeml.exporter.repeat.cache import Cache
    from edgeml.exporter.request import ExportRequest

Paths = str | os.PathLike[str]


def export(
    model: Any,
    targets: str | Sequence[str],
    *,
    on_event: Callable[[AnyEvent], None] | None = None,
    **options: Unpack[Options],
) -> ExportResult:
    """Make a bundle from a trained model: ``edgeml export``, from Python.

    It runs where the converters are, in processes of its own; Ctrl-C or an exception in
    ``on_event`` ends them all, and leaves no bundle.

    Args:
        model: a path as on the command line (``model.py:build``, ``net.onnx``); or a live
            ``nn.Module``, Keras model, or estimator of scikit-learn, XGBoost or LightGBM.
        targets: targets and devices: ``"tflite"``, ``["openvino", "jetson-orin-nano"]``.
        on_event: told of each event (:mod:`edgeml.exporter.events`) as it comes.
        options: those of :func:`exporting`, which has a word on each.

    Returns:
        What ``--json`` prints, typed, with the bundle's path.

    Raises:
        RefusedError: no target can make this model.
        SourceError: model or samples cannot be used, or an artifact failed its check.
        UsageError: an option is wrong.
        ToolchainError: a converter died, or there are no converters and they cannot be installed.
    """
    gathered = Gathering()
    with contextlib.closing(exporting(model, targets, **options)) as events:
        for event in events:
            gathered.take(event)
            if on_event is not None:
                on_event(event)
    return gathered.result()


def exporting(
    model: Any,
    targets: str | Sequence[str],
    *,
    calibration: Any = None,
    evaluate: Any = None,
    examples: Any = None,
    output: Paths = ".",
    name: str = "",
    version: str = "0.1.0",
    precision: str = "auto",
    max_accuracy_drop: float | str | None = None,
    max_latency: float | str | None = None,
    max_memory: float | str | None = None,
    max_size: int | str | None = None,
    metric: str = "",
    confidence: float = 0.95,
    tolerances: Mapping[str, Mapping[str, float]] | None = None,
    deadline_ms: float | None = None,
    memory_mb: float | None = None,
    preprocess: Paths = "",
    shapes: Mapping[str, Sequence[int]] | None = None,
    statistics: Mapping[str, str] | None = None,
    python: Paths = "",
    trust: bool = False,
    report: Paths = "",
    minimize: Paths = "",
    seed: int = 0,
    cache: bool = True,
    say: Callable[[str], None] | None = None,
) -> Generator[AnyEvent, None, None]:
    """An export as an iterator of its typed events; closing it ends the export.

    The last event is a :class:`~edgeml.exporter.events.Done`, or a
    :class:`~edgeml.exporter.events.Failure` where there is no bundle.

    Args:
        model: see :func:`export`.
        targets: see :func:`export`.
        calibration: samples: a path as on the command line; an array [n, ...]; a mapping of input
            names (and ``labels``) to arrays; a tuple of arrays, the labels last; or an iterable of
            samples or batches, such as a ``DataLoader``. What is in memory is written to files.
        evaluate: likewise, with labels for an accuracy.
        examples: a batch of inputs of an ``nn.Module``, where the samples do not show them.
        output: a file that ends in ``.edgeml``, or a folder.
        name: of the model; empty: from the model.
        version: of the model.
        precision: ``auto``, or one of ``edgeml.bundle.Precision``.
        max_accuracy_drop: a share (.01 is one point), or ``"1%"``.
        max_latency: in ms, or ``"20ms"``.
        max_memory: in MB (10^6 bytes), or ``"64MB"``.
        max_size: in bytes, or ``"2MB"``.
        metric: ``top-1``, ``auc``, ``mse``, ``f1``, ``agreement`` or ``FILE.py:FUNCTION``.
        confidence: of the certificate.
        tolerances: by precision: ``{"int8": {"cosine": .95, "agreement": .9}}``.
        deadline_ms: budget of a request on the device.
        memory_mb: budget of the device's memory.
        preprocess: a TOML file that declares what artifacts do to raw input.
        shapes: of inputs with open axes; -1 keeps one open.
        statistics: of inputs, by name: a family of ``edgeml.statistics``, or ``none``.
        python: the interpreter that a factory, and code that gives samples, runs in.
        trust: whether a pickle may be opened.
        report: a ``.png`` or ``.html`` for the Pareto front.
        minimize: an ``.onnx`` for the smallest model that shows a refusal.
        seed: of every draw.
        cache: whether what was made before may be taken again.
        say: told what a user should read while a toolchain is installed; None: standard error.

    Raises:
        UsageError: an option is wrong.
        SourceError: model or samples in memory cannot be written to files.
        ToolchainError: there are no converters and they cannot be installed, or they died.
    """
    from edgeml.api.hopping import stream_export
    from edgeml.exporter import units
    from edgeml.exporter.events import Note, Started
    from edgeml.exporter.request import Choice, ExportRequest, Limits
    from edgeml.targets.devices import resolve

    if precision not in get_args(Choice):
        raise UsageError(
            f"There is no precision {precision!r}", expected=f"one of {', '.join(get_args(Choice))}"
        )
    resolved = resolve([targets] if isinstance(targets, str) else targets)
    budgets = resolved.budgets

    def quantity(value: float | str | None, parse: Callable[[str], float]) -> float | None:
        return parse(value) if isinstance(value, str) else value

    size = quantity(max_size, lambda text: units.parse_bytes(text, "a size"))
    with Inputs(keep=cache, say=say or _say) as inputs:
        data = {
            "calibration": inputs.samples(calibration, "calibration"),
            "evaluation": inputs.samples(evaluate, "evaluate"),
        }
        path, trusted = inputs.model(model, examples, shapes or {})
        request = ExportRequest(
            model=path,
            targets=resolved.targets,
            devices=resolved.devices,
            **data,
            precision=cast("Choice", precision),
            name=name,
            version=version,
            output=os.fspath(output),
            tolerances=cast("Any", tolerances or {}),
            deadline_ms=budgets.deadline_ms if deadline_ms is None else deadline_ms,
            memory_mb=budgets.memory_mb if memory_mb is None else memory_mb,
            seed=seed,
            limits=Limits(
                accuracy_drop=quantity(max_accuracy_drop, units.parse_drop),
                latency_ms=quantity(max_latency, units.parse_latency),
                memory_mb=quantity(
                    max_memory, lambda text: units.parse_bytes(text, "an amount of memory") / 1e6
                ),
                size_bytes=None if size is None else int(size),
            ),
            metric=metric,
            confidence=units.parse_confidence(str(confidence)),
            preprocessing=os.fspath(preprocess),
            shapes={key: tuple(sizes) for key, sizes in (shapes or {}).items()},
            statistics=dict(statistics or {}),
            python=os.fspath(python),
            trust=trust or trusted,
            report=os.fspath(report),
            minimize=os.fspath(minimize),
            cache=cache,
        )
        for event in stream_export(_checked(request), say=say or _say, progress=lambda _: None):
            yield event
            if isinstance(event, Started):
                yield from (Note(text=text) for text in inputs.notes)


def _checked(request: ExportRequest) -> ExportRequest:
    """The request as the exporter will read it: Python has not looked at the types.

    Raises:
        UsageError: an option has another type.
    """
    from edgeml.decoding import from_plain
    from edgeml.exporter.request import ExportRequest

    try:
        return from_plain(msgspec.to_builtins(request), ExportRequest)
    except (TypeError, msgspec.ValidationError) as error:
        raise UsageError(
            f"An option cannot be used: {error}", expected="the types of edgeml.exporting"
        ) from error


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


class Inputs:
    """Live models and samples as files: in the cache by their content, or in a temporary folder.

    In the cache the same content has the same path, so that the same export is found again.
    """

    def __init__(self, *, keep: bool, say: Callable[[str], None]) -> None:
        from edgeml.exporter.repeat.cache import Cache

        self.notes: list[str] = []
        """What the user should know of how they went over."""
        self._say = say
        self._cache: Cache | None = Cache() if keep else None
        self._folder = tempfile.TemporaryDirectory(prefix="edgeml-python-")
        self._shown: Written | None = None
        self._count = 0

    def __enter__(self) -> Inputs:
        return self

    def __exit__(self, *_: object) -> None:
        self._folder.cleanup()

    def samples(self, data: Any, what: str) -> str | None:
        """DATA, for the request."""
        from edgeml.api import samples

        if data is None:
            return None
        if isinstance(data, str | os.PathLike):
            return os.fspath(cast("Paths", data))
        folder = self._new()
        written = samples.write(data, folder, what)
        self._shown = self._shown or written
        head, colon, attribute = written.name.partition(":")
        return f"{self._kept(folder, what) / head}{colon}{attribute}"

    def model(
        self, model: Any, examples: Any, shapes: Mapping[str, Sequence[int]]
    ) -> tuple[str, bool]:
        """MODEL, for the request, and whether it is a pickle of our own making."""
        from edgeml.api import models

        if isinstance(model, str | os.PathLike):
            return os.fspath(cast("Paths", model)), False
        folder = self._new()
        try:
            given = models.Given(examples, self._shown, shapes)
            written = models.write(model, folder, given, unread=self._unread)
        except OSError as error:
            raise SourceError(f"The model cannot be written to {folder}: {error}") from error
        if written.note:
            self.notes.append(written.note)
        return str(self._kept(folder, written.path.stem) / written.path.name), written.trusted

    def _unread(self, program: Path, version: str) -> str:
        from edgeml.api.hopping import unread

        return unread(program, version, say=self._say)

    def _new(self) -> Path:
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        return folder

    def _kept(self, folder: Path, what: str) -> Path:
        """Where the files of a folder are to be read from."""
        if self._cache is None:
            return folder
        from edgeml.exporter.repeat.dependencies import file_hash

        key = file_hash(folder)
        files = {str(f.relative_to(folder)): f for f in folder.rglob("*") if f.is_file()}
        entry = self._cache.find("input", key)
        if entry is not None and not entry.intact():
            self._cache.drop(entry)
        if self._cache.keep("input", key, files, None, model=what):
            return folder
        entry = self._cache.find("input", key)
        if entry is None:
            return folder
        entry.count()
        return entry.folder
