"""Trying all candidates at once: what an export without limits does.

The conversions of different targets overlap; then every artifact is checked; then each is measured,
one at a time, with nothing else going on.
"""

from __future__ import annotations

from collections.abc import Mapping

from edgeml.exporter import measure
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.compile import Converters, Jobs, Outcome
from edgeml.exporter.events import Note, Progress, Refusal, Stage
from edgeml.exporter.intake import Material
from edgeml.exporter.judging.check import Checker, not_checkable
from edgeml.exporter.judging.metrics import Judge
from edgeml.exporter.plan import Plan, Workshop
from edgeml.exporter.trial import Checked, Trial, Tried, compile_job, refusal
from edgeml.targets.compiling import CompileResult

Made = Mapping[Candidate, CompileResult]


def try_all(
    planned: Plan,
    material: Material,
    judge: Judge | None,
    converters: Converters,
    shop: Workshop,
) -> Tried:
    """Make, check and measure all candidates.

    Raises:
        EdgemlError: something that has nothing to do with a target.
    """
    auto = planned.request.precision == "auto"
    outcomes = _compile(planned, material, converters, shop)
    made = {c: o for c, o in outcomes.items() if isinstance(o, CompileResult)}
    refused = _refusals(outcomes, auto=auto, shop=shop)
    if not made:
        return Tried(trials=(), refused=refused)
    with Checker(planned, material, judge, shop) as checker:
        checked = _check(made, checker, material, shop)
        source_accuracy = checker.source_accuracy()
    trials = _measure(made, checked, material, shop)
    return Tried(trials=trials, refused=refused, source_accuracy=source_accuracy)


def _compile(
    planned: Plan, material: Material, converters: Converters, shop: Workshop
) -> dict[Candidate, Outcome]:
    shop.emit(Stage(name="candidates", title="Choosing what to try"))
    if material.calibration is None and planned.request.precision == "auto":
        shop.emit(Note(text="Without --calibration there is no int8: random data is never used."))
    jobs: dict[str, Jobs] = {}
    for each in planned.candidates:
        job = compile_job(each, material, shop)
        jobs[each.target] = [*jobs.get(each.target, ()), (each, job)]
    shop.emit(Stage(name="compile", title="Converting", steps=len(planned.candidates)))
    done = shop.steps()
    return converters.run(
        jobs,
        done=lambda candidate, outcome: done(
            f"{candidate}{'' if isinstance(outcome, CompileResult) else ' was not made'}"
        ),
    )


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


def _check(
    made: Made, checker: Checker, material: Material, shop: Workshop
) -> dict[Candidate, Checked]:
    """Of all that can be run here: a child a target."""
    count = len(material.checkset.samples)
    able = [each for each in made if not not_checkable(each.target)]
    shop.emit(Stage(name="verify", title=f"Checking on {count:,} samples", steps=len(able)))
    done = shop.steps()
    checked: dict[Candidate, Checked] = {}
    for name in dict.fromkeys(each.target for each in able):
        with shop.children.child() as child:
            for candidate in able:
                if candidate.target == name:
                    checked[candidate] = checker.check(child, candidate, made[candidate])
                    done(str(candidate))
    return checked


def _measure(
    made: Made, checked: Mapping[Candidate, Checked], material: Material, shop: Workshop
) -> tuple[Trial, ...]:
    shop.emit(Stage(name="measure", title="Measuring, one at a time", steps=len(made)))
    done = shop.steps()
    samples = measure.samples_for(material.checkset.samples, shop.folder / "measure.npz")
    trials: list[Trial] = []
    for candidate, result in made.items():
        shop.emit(Progress(text=str(candidate)))
        measured, why = measure.measure(candidate, result, samples, shop)
        trials.append(
            Trial(
                candidate=candidate,
                made=result,
                checked=checked.get(candidate),
                not_checked=not_checkable(candidate.target),
                measured=measured,
                not_measured=why,
            )
        )
        done(str(candidate))
    return tuple(trials)
