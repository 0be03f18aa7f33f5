"""Trying all candidates at once: what an export without limits does.

The conversions of different targets overlap, with each other and with the source model's own run on
the samples; an artifact is checked as soon as it is made, while others are still being converted;
then each that passed, or was asked for by name, is measured, one at a time, with nothing else going
on. The processes for checks and measurements are started while conversions go on.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from types import TracebackType

from edgeml.bundle import Measurement
from edgeml.errors import DoesNotRunError
from edgeml.exporter.candidates import Candidate, spares
from edgeml.exporter.child import Child
from edgeml.exporter.compile import Converters, Jobs, Outcome
from edgeml.exporter.events import Note, Progress, Refusal, Stage
from edgeml.exporter.intake import Material, Stock
from edgeml.exporter.judging.check import Checker, not_checkable
from edgeml.exporter.judging.choose import FLOAT, holds
from edgeml.exporter.judging.metrics import Judge
from edgeml.exporter.measure import Bench, measure, measure_in_turns, samples_for, together
from edgeml.exporter.plan import Plan, Workshop
from edgeml.exporter.steps import Steps
from edgeml.exporter.trial import Checked, Trial, Tried, compile_job, refusal
from edgeml.targets.compiling import CompileResult

Made = Mapping[Candidate, CompileResult]

FAILED = "it failed its check"


class Bulk:
    """All candidates of an export. A context manager: leaving it early ends what is going on.

    Args:
        converters: of all targets.
        shop: where to work.
    """

    def __init__(self, converters: Converters, shop: Workshop) -> None:
        self._converters = converters
        self._shop = shop
        self._bench = Bench(shop.children)
        self._checker: Future[Checker] = Future()
        # One at a time, in a thread that its children live as long as.
        self._checking = ThreadPoolExecutor(1)
        self._runners = ExitStack()
        self._scoring = ExitStack()
        self._running: dict[str, Child] = {}
        self._checks: dict[Candidate, Future[Checked]] = {}
        self._spares: dict[Candidate, Candidate] = {}
        self._droppable: set[Candidate] = set()
        self._ready = False
        self._last: float | None = None
        self._converted = Steps(shop.emit)
        self._verified = Steps(shop.emit)

    def __enter__(self) -> Bulk:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None:
            self._shop.children.close()  # the threads end with them
        self._checker.cancel()
        self._scoring.close()
        self._checking.submit(self._runners.close)
        self._checking.shutdown()
        self._bench.close()

    def stand_by(self, planned: Plan) -> None:
        """Start the processes for checks and measurements, once: while the model is read, where a
        core has nothing else to do, and at the latest with the conversions."""
        if self._ready:
            return
        self._ready = True
        spared = spares(planned.candidates, planned.request.precision)
        for each in planned.candidates:
            if each not in spared:
                self._bench.expect(each)
        for target in dict.fromkeys(each.target for each in planned.candidates):
            if not not_checkable(target):
                self._checking.submit(self._runner, target)

    def begin(self, stock: Stock, shop: Workshop) -> None:
        """Start the conversions, as soon as there is something to convert."""
        jobs: dict[str, Jobs] = {}
        for each in stock.plan.candidates:
            job = compile_job(each, stock, shop)
            jobs[each.target] = [*jobs.get(each.target, ()), (each, job)]
        self._spares = spares(stock.plan.candidates, stock.plan.request.precision)
        if stock.plan.request.precision == "auto":  # where a float one stands beside it
            self._droppable = {c for c in stock.plan.candidates if c.precision not in FLOAT}
        self.stand_by(stock.plan)
        self._converters.begin(jobs, done=self._ended)

    def _ended(self, candidate: Candidate, outcome: Outcome) -> None:
        """In a converter's thread."""
        made = isinstance(outcome, CompileResult)
        self._converted(f"{candidate}{'' if made else ' was not made'}")
        self._last = time.monotonic()
        if made and candidate not in self._spares and not not_checkable(candidate.target):
            self._checks[candidate] = self._checking.submit(self._check, candidate, outcome)

    def _check(self, candidate: Candidate, made: CompileResult) -> Checked:
        """In the checking thread."""
        checker = self._checker.result()
        runner = self._runner(candidate.target)
        checked = checker.check(runner, candidate, made, dropped=candidate in self._droppable)
        if candidate not in self._spares:
            self._verified(str(candidate))
        return checked

    def _runner(self, target: str) -> Child:
        """In the checking thread: a child a target."""
        child = self._running.get(target)
        if child is None:
            child = self._runners.enter_context(self._shop.children.child())
            self._running[target] = child
            child.call("edgeml.exporter.child:give_way", None, int, step="A check")
            child.call("edgeml.exporter.judging.predict:stand_by", target, str, step="A check")
        return child

    def check(self, material: Material, judge: Judge | None) -> None:
        """Let the checks begin: of what is made already, and of each that will be."""
        checker = Checker(material.plan, material, judge, self._shop)
        self._checker.set_result(self._scoring.enter_context(checker))

    def finish(self, material: Material) -> Tried:
        """Wait for the conversions and checks, then measure.

        Raises:
            EdgemlError: something that has nothing to do with a target.
        """
        planned, shop = material.plan, self._shop
        auto = planned.request.precision == "auto"
        shop.emit(Stage(name="candidates", title="Choosing what to try"))
        if material.calibrating is None and auto:
            text = "Without --calibration there is no int8: random data is never used."
            shop.emit(Note(text=text))
        count = len(planned.candidates)
        self._converted.open(Stage(name="compile", title="Converting", steps=count))
        outcomes = self._converters.finish()
        made = _made(outcomes)
        if not made:
            return Tried(trials=(), refused=_refusals(outcomes, auto=auto, shop=shop))
        title = f"Checking on {len(material.checkset.samples):,} samples"
        self._verified.open(Stage(name="verify", title=title, steps=len(self._checks)))
        checked: dict[Candidate, Checked] = {}
        for candidate, check in self._checks.items():
            _take(candidate, check, checked, outcomes)
        for each in self._needed(made, checked):
            shop.emit(Progress(text=str(each)))
            check = self._checking.submit(self._check, each, made[each])
            _take(each, check, checked, outcomes)
        made = _made(outcomes)
        refused = _refusals(outcomes, auto=auto, shop=shop)
        source_accuracy = self._checker.result().source_accuracy()
        self._scoring.close()
        self._checking.submit(self._runners.close).result()
        spare = [each for each in made if each in self._spares and each not in checked]
        trials = self._measure(
            {each: result for each, result in made.items() if each not in spare}, checked, material
        )
        return Tried(
            trials=trials,
            refused=refused,
            source_accuracy=source_accuracy,
            spare=tuple(Trial(candidate=each, made=made[each]) for each in spare),
            converted=self._last,
        )

    def _needed(self, made: Made, checked: Mapping[Candidate, Checked]) -> list[Candidate]:
        """The spare ones whose other was not made, or does not hold; all, where none is checked."""
        return [
            each
            for each, other in self._spares.items()
            if each in made
            and not not_checkable(each.target)
            and not (
                other in checked
                and holds(
                    Trial(candidate=other, made=made[other], checked=checked[other]).figures()
                )
            )
        ]

    def _measure(
        self, made: Made, checked: Mapping[Candidate, Checked], material: Material
    ) -> tuple[Trial, ...]:
        shop = self._shop
        shop.emit(Stage(name="measure", title="Measuring, one at a time", steps=len(made)))
        done = shop.steps()
        auto = material.plan.request.precision == "auto"
        samples = samples_for(material.checkset.samples, shop.folder / "measure.npz")
        self._bench.settle()
        failed = {each for each in made if auto and each in checked and checked[each].shortfall}
        in_turns: dict[Candidate, Measurement] = {}
        for target in dict.fromkeys(each.target for each in made):
            mine = {e: r for e, r in made.items() if e.target == target and e not in failed}
            if auto and together(mine):
                shop.emit(Progress(text=" and ".join(map(str, mine))))
                in_turns |= measure_in_turns(mine, samples, self._bench)
        trials: list[Trial] = []
        for candidate, result in made.items():
            shop.emit(Progress(text=str(candidate)))
            check = checked.get(candidate)
            measured, why = in_turns.get(candidate), ""
            if candidate in failed:
                why = FAILED  # it goes nowhere, however fast it is
            elif measured is None:
                measured, why = measure(candidate, result, samples, self._bench)
            trials.append(
                Trial(
                    candidate=candidate,
                    made=result,
                    checked=check,
                    not_checked=not_checkable(candidate.target),
                    measured=measured,
                    not_measured=why,
                )
            )
            done(str(candidate))
        return tuple(trials)


def _take(
    candidate: Candidate,
    check: Future[Checked],
    checked: dict[Candidate, Checked],
    outcomes: dict[Candidate, Outcome],
) -> None:
    """What a check found; or, in place of the artifact, why it does not run."""
    try:
        checked[candidate] = check.result()
    except DoesNotRunError as error:
        outcomes[candidate] = error


def _made(outcomes: Mapping[Candidate, Outcome]) -> dict[Candidate, CompileResult]:
    return {c: o for c, o in outcomes.items() if isinstance(o, CompileResult)}


def _refusals(
    outcomes: Mapping[Candidate, Outcome], *, auto: bool, shop: Workshop
) -> dict[str, Refusal]:
    """A refusal for each target of which nothing could be made.

    A target of which something else was made is no failure, and gets a note.
    """
    refused: dict[str, Refusal] = {}
    made = {c.target for c, o in outcomes.items() if isinstance(o, CompileResult)}
    for candidate, outcome in outcomes.items():
        if isinstance(outcome, CompileResult):
            continue
        told = refusal(candidate, outcome, auto=auto)
        if candidate.target not in made:
            refused.setdefault(candidate.target, told)
            continue
        note = Note(
            text=f"was not made: {outcome}",
            target=candidate.target,
            precision=candidate.precision,
        )
        shop.emit(note)
    return refused
