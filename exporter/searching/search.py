"""Searching a target's candidates, one after another, for the fastest within the limits.

:mod:`edgeml.exporter.searching.ladder` says in which order, and what need not be tried. A candidate
is made, weighed and measured before it is checked, so that one that is too large or too slow is
seen on few samples only. Where int8 falls short of the accuracy asked for, its layers are compared
with the float ones, and those that add most noise stay float in ``mixed`` candidates. Those that
are left at the end are measured once more, in turns: the core may have changed its speed meanwhile.
"""

from __future__ import annotations

import contextlib
import filecmp
import shutil
from pathlib import Path

import msgspec

from edgeml.bundle.manifest import Precision
from edgeml.errors import DoesNotRunError, EdgemlError, RefusedError
from edgeml.exporter import measure
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.child import Child
from edgeml.exporter.compile import Converters
from edgeml.exporter.events import Note, Progress, Refusal, Stage
from edgeml.exporter.intake import Material
from edgeml.exporter.judging.certificate import points, share_of
from edgeml.exporter.judging.check import Checker, not_checkable
from edgeml.exporter.judging.figures import missed, satisfies
from edgeml.exporter.judging.metrics import Judge
from edgeml.exporter.plan import Plan, Workshop
from edgeml.exporter.searching import ladder, sensitivity
from edgeml.exporter.trial import Trial, Tried, compile_job, refusal
from edgeml.targets.compiling import CompileResult

MOST_MIXED = 8
"""``mixed`` candidates of a target: 1, 2, 4 … float layers, and some in between."""


def search(
    planned: Plan,
    material: Material,
    judge: Judge | None,
    converters: Converters,
    shop: Workshop,
) -> Tried:
    """Search all targets.

    Raises:
        EdgemlError: something that has nothing to do with a target.
    """
    shop.emit(Stage(name="candidates", title="Choosing what to try"))
    if material.calibration is None and planned.request.precision == "auto":
        text = (
            "Without --calibration there is no int8, int16x8 or mixed: random data is never used."
        )
        shop.emit(Note(text=text))
    samples = measure.samples_for(material.checkset.samples, shop.folder / "measure.npz")
    trials: list[Trial] = []
    refused: dict[str, Refusal] = {}
    with Checker(planned, material, judge, shop) as checker:
        source_accuracy = checker.source_accuracy()
        for name in dict.fromkeys(each.target for each in planned.candidates):
            shop.emit(Stage(name="search", title=f"Searching for {name}"))
            bench = measure.Bench(shop.children)
            with (
                shop.children.child() as converter,
                shop.children.child() as runner,
                contextlib.closing(bench),
                shop.children.ended_by_errors(),
            ):
                one = _Target(
                    name,
                    planned,
                    material,
                    checker,
                    converters,
                    converter,
                    runner,
                    bench,
                    samples,
                    shop,
                )
                one.run()
                one.settle()
            trials += one.trials
            if one.refused is not None and not one.trials:
                refused[name] = one.refused
    return Tried(trials=tuple(trials), refused=refused, source_accuracy=source_accuracy)


class _Target:
    """The search for one target."""

    def __init__(
        self,
        name: str,
        planned: Plan,
        material: Material,
        checker: Checker,
        converters: Converters,
        converter: Child,
        runner: Child,
        bench: measure.Bench,
        samples: Path,
        shop: Workshop,
    ) -> None:
        self._name = name
        self._request = planned.request
        self._limits = planned.request.limits
        self._precisions: list[Precision] = [
            each.precision for each in planned.candidates if each.target == name
        ]
        self._material = material
        self._checker = checker
        self._converters = converters
        self._converter = converter
        self._runner = runner
        self._bench = bench
        self._samples = samples
        self._shop = shop
        self.trials: list[Trial] = []
        self.refused: Refusal | None = None
        """Of the first that could not be made."""
        self._hopeless = False

    def run(self) -> None:
        """Try what may win."""
        named_mixed = self._request.precision == "mixed"
        for precision in ladder.ordered(self._precisions):
            figures = [trial.figures() for trial in self.trials]
            why = "" if named_mixed else ladder.pointless(precision, figures, self._limits)
            if why:
                text = f"was not tried: {why}"
                self._shop.emit(Note(text=text, target=self._name, precision=precision))
                continue
            trial = self._try(Candidate(self._name, precision))
            if trial is None and self._hopeless:
                return
            if trial is None:
                continue
            if precision == "fp32" and trial.figures().shortfall:
                return  # all others come from it
            mixing = precision == "int8" and "mixed" in self._precisions
            if mixing and (named_mixed or ladder.mixable(trial.figures(), self._limits)):
                self._mix(trial)

    def settle(self) -> None:
        """Measure those between which latency decides in turns; these figures are theirs then."""
        figures = [trial.figures() for trial in self.trials]
        names = [each.candidate for each in ladder.contenders(figures, self._limits)]
        made = {each.candidate: each.made for each in self.trials if each.candidate in names}
        if not made or not measure.fit_together(made):
            return
        self._shop.emit(Progress(text=f"{' and '.join(map(str, made))}: measuring in turns"))
        found = measure.measure_in_turns(made, self._samples, self._bench)
        self.trials = [
            msgspec.structs.replace(each, measured=found.get(each.candidate, each.measured))
            for each in self.trials
        ]

    def _try(self, candidate: Candidate, note: str = "") -> Trial | None:
        """One candidate; None where it was not made."""
        say = self._shop.emit
        say(Progress(text=f"{candidate}: converting"))
        job = compile_job(candidate, self._material, self._shop)
        made = self._converters.one(self._converter, candidate, job)
        if not isinstance(made, CompileResult):
            return self._not_made(candidate, made)
        if candidate.precision == "mixed":
            same = next((each for each in self.trials if _same(each.made, made)), None)
            if same is not None:  # a layer that the recipe leaves float anyway
                return same
            # The next one would take its place.
            made = _moved(made, self._shop.folder / "mixed" / self._name / str(len(self.trials)))
        try:
            trial = self._looked_at(candidate, made)
        except DoesNotRunError as error:
            return self._not_made(candidate, error)
        trial = msgspec.structs.replace(trial, note=note or self._noted(trial))
        self.trials.append(trial)
        return trial

    def _looked_at(self, candidate: Candidate, made: CompileResult) -> Trial:
        """One that was made, measured and checked.

        Raises:
            DoesNotRunError: it cannot be opened or run here.
        """
        say = self._shop.emit
        say(Progress(text=f"{candidate}: measuring"))
        measured, why = measure.measure(candidate, made, self._samples, self._bench)
        trial = Trial(
            candidate=candidate,
            made=made,
            not_checked=not_checkable(self._name),
            measured=measured,
            not_measured=why,
        )
        if not trial.not_checked:
            say(Progress(text=f"{candidate}: checking"))
            hopeless = bool(missed(trial.figures(), ladder.nearly(self._limits)))
            share = share_of(len(self.trials) + 1, alone=len(self._precisions) == 1)
            checked = self._checker.check(
                self._runner, candidate, made, cursory=hopeless, share=share
            )
            trial = msgspec.structs.replace(trial, checked=checked)
        return trial

    def _not_made(self, candidate: Candidate, why: EdgemlError) -> None:
        told = refusal(candidate, why, auto=self._request.precision == "auto")
        self.refused = self.refused or told
        # What float lacks, all lack.
        lacks = isinstance(why, RefusedError) and not isinstance(why, DoesNotRunError)
        self._hopeless = not self.trials and lacks
        if not self._hopeless and len(self._precisions) > 1:
            note = Note(
                text=f"was not made: {why}", target=self._name, precision=candidate.precision
            )
            self._shop.emit(note)

    def _noted(self, trial: Trial) -> str:
        """What a mixed one bought, over the one with fewer float layers before it."""
        count = len(trial.candidate.keep_float)
        fewer = [
            each
            for each in self.trials
            if each.candidate.precision in ("int8", "mixed")
            and len(each.candidate.keep_float) < count
        ]
        if not fewer:
            return ""
        before = max(fewer, key=lambda each: len(each.candidate.keep_float))
        return bought(before, trial)

    def _mix(self, int8: Trial) -> None:
        """Keep layers float, the worst first, until it suffices."""
        exact = next((t for t in self.trials if t.candidate.precision == "fp32"), None)
        if exact is None or int8.checked is None:
            return
        self._shop.emit(
            Progress(text=f"{int8.candidate}: comparing its layers with the float ones")
        )
        job = compile_job(int8.candidate, self._material, self._shop)
        try:
            layers = sensitivity.ranked(
                sensitivity.signals(job, exact, int8, self._samples, self._shop)
            )
        except EdgemlError as error:
            text = f"was not tried: which layers should stay float cannot be told. {error}"
            self._shop.emit(Note(text=text, target=self._name, precision="mixed"))
            return
        names = tuple(layer.name for layer in layers)
        results: dict[int, bool] = {}
        while len(results) < MOST_MIXED:
            count = ladder.next_floats(results, len(names))
            if count is None:
                return
            trial = self._try(Candidate(self._name, "mixed", names[:count]))
            if trial is None:
                return
            figures = trial.figures()
            over = {each.limit for each in missed(figures, ladder.nearly(self._limits))}
            if over & {"size", "latency"} and not any(results.values()):
                return  # more float layers make it larger and slower
            results[count] = satisfies(figures, self._limits)


def bought(before: Trial, after: Trial) -> str:
    """What more float layers brought: ``accuracy drop 4.1 → 0.6 points, 0.21 → 0.26 ms, …``."""
    parts: list[str] = []
    if before.checked and after.checked:
        one, two = before.checked, after.checked
        if one.drop is not None and two.drop is not None:
            parts.append(f"drop {one.drop * 100:.3g} → {points(two.drop)}")
        parts.append(f"cosine {one.parity.cosine:.4f} → {two.parity.cosine:.4f}")
    if before.measured and after.measured:
        parts.append(f"{before.measured.p50_ms:.3g} → {after.measured.p50_ms:.3g} ms")
    parts.append(f"{before.bytes / 1e3:.4g} → {after.bytes / 1e3:.4g} kB")
    floats = (len(before.candidate.keep_float), len(after.candidate.keep_float))
    return f"{floats[0]} → {floats[1]} float layers: {', '.join(parts)}"


def _moved(made: CompileResult, folder: Path) -> CompileResult:
    folder.mkdir(parents=True)
    files = tuple(Path(shutil.copy(file, folder / file.name)) for file in made.files)
    return msgspec.structs.replace(made, files=files)


def _same(one: CompileResult, other: CompileResult) -> bool:
    return len(one.files) == len(other.files) and all(
        filecmp.cmp(a, b, shallow=False) for a, b in zip(one.files, other.files, strict=True)
    )
