"""The stages ``source`` and ``calibrate``: the model normalised, the samples read and split, and
what the source model makes of them.

One child reads the model, and runs it on the samples while it still holds it: conversions can begin
in between, and checks before it has run on those that they do not need. The samples stay on disk
from first to last.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeml.bundle import Tensor
from edgeml.bundle.manifest import Step
from edgeml.columns import blocks, save_rows
from edgeml.data import DataSource, Samples
from edgeml.data.files import unpack
from edgeml.errors import SourceError, UsageError
from edgeml.exporter import meaning, preprocessing
from edgeml.exporter.candidates import nothing_left
from edgeml.exporter.child import Child
from edgeml.exporter.events import Note, Progress, Refusal, Stage
from edgeml.exporter.plan import Plan, Workshop, settled, uncalibrated
from edgeml.exporter.samples import calibrate, missing
from edgeml.exporter.sources.forms import ArrayShape, Opened, OpenJob, framework
from edgeml.targets.sources import MAX_CALIBRATION_SAMPLES, evenly

Array = NDArray[Any]


class Checkset(msgspec.Struct, frozen=True, kw_only=True):
    """The samples that artifacts are checked on, and what the source makes of them."""

    samples: Samples
    files: tuple[Path, ...]
    """An ``.npy`` an input."""
    reference: dict[str, Array]
    """The source's outputs."""
    decisions: tuple[str, ...]
    """Outputs that are scores."""
    labels: Array | None
    """Class numbers, where the samples have such labels."""
    labelled: str
    """The output that the labels belong to; empty where there is none."""


class Stock(msgspec.Struct, frozen=True, kw_only=True):
    """What conversions work on."""

    plan: Plan
    """Settled: for the kind that the model turned out to be."""
    source: Opened
    """With the preprocessing in front, where one is declared."""
    inputs: tuple[Tensor, ...]
    calibrating: Path | None
    """Those that the quantizers see, as :attr:`edgeml.targets.compiling.CompileJob.calibration`
    wants them: no more than any of them takes, and none with a missing value. None where there are
    no such samples."""
    inside: tuple[Step, ...] = ()
    """What the source, and with it every artifact, does to raw input first."""


class Material(Stock, frozen=True, kw_only=True):
    """All that the later stages work on."""

    outputs: tuple[Tensor, ...]
    calibration: Samples | None
    """All calibration samples."""
    calibration_reference: dict[str, Array]
    """What the source makes of all of them; empty without calibration samples."""
    evaluation: Samples | None
    checkset: Checkset


def take_in(
    plan: Plan,
    shop: Workshop,
    begin: Callable[[Stock], None],
    check: Callable[[Material], None],
) -> Material:
    """Read the model and the samples.

    Args:
        plan: what was asked for.
        shop: where to work.
        begin: is called when there is all that conversions need, before the source model runs on
            the samples.
        check: is called when there is all that checks need: everything but
            ``calibration_reference``, where there are evaluation samples beside those.

    Raises:
        SourceError: either cannot be used as given.
    """
    shop.emit(Stage(name="source", title=f"Reading {plan.model}"))
    with _Unpacking(plan, shop) as unpacking, shop.children.child(framework(plan.model)) as child:
        bare = source = _open(plan, shop, child)
        plan = _told(plan, settled(plan, source.kind), shop)
        inputs = tuple(meaning.infer_input(each, source.kind) for each in source.inputs)
        inside: tuple[Step, ...] = ()
        if plan.preprocessing is not None:
            wrapped = preprocessing.put_in_front(plan.preprocessing, source, child)
            source, inputs, inside = wrapped.source, wrapped.inputs, wrapped.inside
        _check_names(plan.request.statistics, inputs)
        shop.emit(Stage(name="calibrate", title="Reading the samples"))
        wanted = missing.tolerant(inputs)
        calibration = _read(
            plan.calibration, "calibration", wanted, inside, plan, shop, child, unpacking
        )
        evaluation = _read(
            plan.evaluation, "evaluation", wanted, inside, plan, shop, child, unpacking
        )
        given = _given(plan, calibration, evaluation)
        inputs = missing.settled(inputs, given, source, child, shop.folder / "missing")
        rows, held = _split(calibration, evaluation, plan.request.seed, shop)
        calibrating = _thinned(calibration, inputs, rows, shop)
        if calibration is not None and calibrating is None:
            plan = _told(plan, uncalibrated(plan), shop)
        begin(
            Stock(plan=plan, source=source, inputs=inputs, calibrating=calibrating, inside=inside)
        )
        child.call("edgeml.exporter.child:give_way", None, int, step="The source model")
        folder = shop.folder / "check"
        if evaluation is None:
            assert calibration is not None
            checking = calibrate.take(calibration, inputs, held, folder)
        else:
            checking = evaluation
        files = tuple(checking.files[tensor.name] for tensor in inputs)
        everything: dict[str, Array] = {}
        if evaluation is None:
            everything = _whole(calibration, inputs, source, shop, child)
            reference = {
                name: save_rows(folder / f"out{index}.npy", array, held)
                for index, (name, array) in enumerate(everything.items())
            }
        else:
            shop.emit(Progress(text=f"the source model on {len(checking)} samples"))
            reference = _run(source, files, folder, child)
        if plan.preprocessing is not None:
            shop.emit(Progress(text="the preprocessing against its reference"))
            preprocessing.check(plan.preprocessing, bare, source, checking, child, shop.folder)
        outputs = meaning.infer_outputs(source.outputs, reference, checking.labels)
        material = Material(
            plan=plan,
            source=source,
            inputs=inputs,
            outputs=outputs,
            calibration=calibration,
            calibration_reference=everything,
            calibrating=calibrating,
            evaluation=evaluation,
            checkset=_checkset(checking, files, reference, outputs),
            inside=inside,
        )
        check(material)
        if evaluation is not None:
            everything = _whole(calibration, inputs, source, shop, child)
    return msgspec.structs.replace(material, calibration_reference=everything)


class _Unpacking:
    """Unpacks the samples in ``.npz`` files while the model is being read. A context manager."""

    def __init__(self, plan: Plan, shop: Workshop) -> None:
        self._pool = ThreadPoolExecutor(1)
        self._found: dict[str, Future[dict[str, Path]]] = {}
        for role, data in (("calibration", plan.calibration), ("evaluation", plan.evaluation)):
            if data is not None and data.kind == "npz":
                (shop.folder / role).mkdir()
                self._found[role] = self._pool.submit(unpack, data.path, shop.folder / role)

    def __enter__(self) -> _Unpacking:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def of(self, role: str) -> Callable[[], dict[str, Path]] | None:
        """What waits for the files of calibration or evaluation; None where none are unpacked."""
        return self._found[role].result if role in self._found else None


def _whole(
    calibration: Samples | None,
    inputs: tuple[Tensor, ...],
    source: Opened,
    shop: Workshop,
    child: Child,
) -> dict[str, Array]:
    """What the source makes of all calibration samples."""
    if calibration is None:
        return {}
    shop.emit(Progress(text=f"the source model on {len(calibration)} samples"))
    stored = tuple(calibration.files[tensor.name] for tensor in inputs)
    return _run(source, stored, shop.folder / "calibration", child)


def _told(plan: Plan, found: Plan, shop: Workshop) -> Plan:
    """Tells at once which targets are out after all: those that do not take a model of this kind,
    say."""
    for name, why in found.refused.items():
        if name not in plan.refused:
            shop.emit(Refusal(target=name, reason=why.reason, remedy=why.remedy))
    if not found.candidates:
        raise nothing_left(found.refused)
    return found


def _open(plan: Plan, shop: Workshop, child: Child) -> Opened:
    model = plan.model
    given = [each for each in (plan.calibration, plan.evaluation) if each is not None]
    code = next((each for each in given if each.kind == "code"), None)
    job = OpenJob(
        form=model.form,
        path=model.path,
        attribute=model.attribute,
        python=model.python,
        workdir=shop.folder,
        shapes=_shapes(plan, given),
        asked=dict(plan.request.shapes),
        iterable=(code.path, code.attribute) if code else None,
    )
    try:
        source = child.call(f"{model.opener}:open_source", job, Opened, step=f"Reading {model}")
    except SourceError as error:
        raw = next((each for each in given if each.kind == "folder"), None)
        if raw is None or plan.preprocessing is not None or not job.shapes:
            raise
        raise SourceError(
            f"The model does not take what the files in {raw} hold, {job.shapes[0].dtype} "
            f"{list(job.shapes[0].shape)}: {error.found}",
            expected="a model that takes raw pixels or PCM, or a declaration of what makes its "
            "input of them",
            remedy="The scaling of the training is not guessed: declare --preprocess FILE.toml "
            "(docs/preprocessing.md), and the artifacts take raw input themselves.",
        ) from error
    for text in source.notes:
        shop.emit(Note(text=text))
    if not source.inputs or not source.outputs:
        raise SourceError(
            f"{model} has no {'inputs' if not source.inputs else 'outputs'}",
            expected="a model that takes samples and answers them",
            remedy="Export it with what it is to be fed as inputs, not as constants.",
        )
    return source


def _check_names(statistics: Mapping[str, str], inputs: tuple[Tensor, ...]) -> None:
    """Find out that statistics were asked of an input that is none, before hours of work."""
    names = [each.name for each in inputs]
    for name in statistics:
        if name not in names:
            raise UsageError(
                f"Statistics were asked for of {name!r}", expected=f"an input: {', '.join(names)}"
            )


def _shapes(plan: Plan, given: list[DataSource]) -> tuple[ArrayShape, ...]:
    """What the data shows of the shapes of the model's own inputs, behind the preprocessing."""
    peeked = [calibrate.peek(each) for each in given]
    shapes = next((shapes for shapes in peeked if shapes), ())
    if plan.preprocessing is None:
        return shapes
    made = preprocessing.made_shapes(plan.preprocessing)
    return (*made, *(each for each in shapes if each.name not in {"", *(m.name for m in made)}))


def _read(
    data: DataSource | None,
    role: str,
    inputs: tuple[Tensor, ...],
    inside: tuple[Step, ...],
    plan: Plan,
    shop: Workshop,
    child: Child,
    unpacking: _Unpacking,
) -> Samples | None:
    if data is None:
        return None
    folder = shop.folder / role
    folder.mkdir(exist_ok=True)
    python = plan.request.python
    if data.kind != "code" or plan.model.form == "factory":
        unpacked = unpacking.of(role)
        return calibrate.read(
            data, inputs, child, folder, inside=inside, python=python, unpacked=unpacked
        )
    # The code may need another framework than the one that read the model.
    with shop.children.child() as own:
        return calibrate.read(data, inputs, own, folder, inside=inside, python=python)


def _given(
    plan: Plan, calibration: Samples | None, evaluation: Samples | None
) -> list[missing.Given]:
    both = ((plan.calibration, calibration), (plan.evaluation, evaluation))
    return [missing.Given(str(data), samples) for data, samples in both if samples is not None]


def _split(
    calibration: Samples | None, evaluation: Samples | None, seed: int, shop: Workshop
) -> tuple[calibrate.Rows, calibrate.Rows]:
    """Rows of the calibration samples that calibrate, and those that artifacts are checked on:
    none where there are evaluation samples."""
    count = 0 if calibration is None else len(calibration)
    if evaluation is not None:
        return np.arange(count), np.arange(0)
    if count == 1:
        text = (
            "There is a single sample: it calibrates, and the artifacts are checked on the same "
            "one. Some hundred would be better."
        )
        shop.emit(Note(text=text))
    return calibrate.split(count, seed=seed)


def _thinned(
    calibration: Samples | None, inputs: tuple[Tensor, ...], rows: calibrate.Rows, shop: Workshop
) -> Path | None:
    """Write the samples for the quantizers, as many as one takes at most, and none with a gap: NaN
    is in no range."""
    rows = rows if calibration is None else missing.whole(calibration, rows)
    if calibration is None or not len(rows):
        return None
    chosen = rows[evenly(len(rows), MAX_CALIBRATION_SAMPLES)]
    folder = shop.folder / "calibrating"
    calibrate.take(calibration, inputs, chosen, folder)
    return folder


def _run(source: Opened, files: tuple[Path, ...], folder: Path, child: Child) -> dict[str, Array]:
    """The source's outputs on the samples in ``files``."""
    found = missing.answers(source, files, folder, child)
    for name, array in found.items():
        for first, block in blocks(array):
            if not np.isfinite(block).all():
                row = first + int(np.argwhere(~np.isfinite(block))[0][0])
                raise SourceError(
                    f"The source model itself gives NaN or infinity in {name!r} for sample {row}",
                    expected="finite numbers for every sample",
                    remedy="Check that the samples went through the preprocessing of the training.",
                )
    return found


def _checkset(
    samples: Samples,
    files: tuple[Path, ...],
    reference: dict[str, Array],
    outputs: tuple[Tensor, ...],
) -> Checkset:
    decisions = [each for each in outputs if each.meaning == "scores"]
    labels, labelled = None, ""
    for each in decisions:
        labels = meaning.class_labels(samples.labels, each.shape[1], each.feature_names)
        if labels is not None:
            labelled = each.name
            break
    return Checkset(
        samples=samples,
        files=files,
        reference=reference,
        decisions=tuple(each.name for each in decisions),
        labels=labels,
        labelled=labelled,
    )
