"""The end of an export: the choice, the table, the report, and the bundle."""

from __future__ import annotations

import time
from pathlib import Path

import msgspec

from edgeml import machine
from edgeml.exporter import pack, results
from edgeml.exporter.candidates import Candidate, nothing_left
from edgeml.exporter.diagnosis.explain import explain
from edgeml.exporter.diagnosis.minimize import minimize
from edgeml.exporter.events import Done, Refusal, Stage
from edgeml.exporter.intake import Material
from edgeml.exporter.judging.choose import Choice, choose, fatal
from edgeml.exporter.judging.figures import Figures
from edgeml.exporter.plan import Plan, Workshop
from edgeml.exporter.repeat.lock import draft
from edgeml.exporter.reporting import report
from edgeml.exporter.trial import Tried
from edgeml.targets.registry import Refusal as Reason


def conclude(
    planned: Plan,
    material: Material,
    described: results.Described,
    tried: Tried,
    shop: Workshop,
    *,
    began: float,
) -> Done:
    """Choose, tell and pack.

    Args:
        planned: what was asked for.
        material: what it was tried on.
        described: what the bundle says of that.
        tried: what came of it.
        shop: where to work.
        began: when the export did, on the monotonic clock.

    Returns:
        The last event, not emitted yet.

    Raises:
        EdgemlError: there is no bundle.
    """
    request = planned.request
    shop.emit(Stage(name="choose", title="Choosing"))
    figures = [each.figures() for each in tried.trials]
    source = tried.source_accuracy
    only = "mixed" if request.precision == "mixed" else None
    choices = choose(
        figures,
        auto=request.precision == "auto",
        source_accuracy=source.value if source else None,
        limits=request.limits,
        only=only,
    )
    failed = _failed(figures, planned)
    if failed:
        choices = {c: msgspec.structs.replace(each, chosen=False) for c, each in choices.items()}
    rows = results.rows(tried.trials, choices, request.limits)
    for row in rows:
        shop.emit(row)
    explain((*tried.trials, *tried.spare), material, shop)
    smallest = (
        minimize(request.minimize, tried.refused, tried.trials, material, shop)
        if request.minimize
        else {}
    )
    refused = {
        name: msgspec.structs.replace(
            each, remedy=f"{each.remedy} {smallest.get(name, '')}".strip()
        )
        for name, each in tried.refused.items()
    }
    unmet = {} if failed else _unmet(tried, choices, planned)
    for event in (*refused.values(), *unmet.values()):
        shop.emit(event)
    told = [Refusal(target=n, reason=w.reason, remedy=w.remedy) for n, w in planned.refused.items()]
    done = Done(
        bundle=str(planned.output),
        name=planned.name,
        version=planned.version,
        bytes=0,
        source_accuracy=source.value if source else None,
        metric=source.metric if source else "",
        samples=len(material.checkset.samples),
        machine=machine.processor(),
        isa=machine.isa(),
        status=1 if planned.refused or refused or unmet else 0,
    )
    drawn, place = None, Path(request.report).resolve()
    if request.report and rows:
        shop.emit(Stage(name="report", title=f"Drawing {request.report}"))
        drawn = report.draw(
            report.Contents(
                path=request.report,
                rows=tuple(rows),
                refusals=(*told, *refused.values(), *unmet.values()),
                done=done,
                limits=request.limits,
            ),
            shop,
        )
        if failed or not any(row.chosen for row in rows):  # what it tells is all that there is
            report.put(drawn, place)
    if failed:
        told_of = [text for name, text in smallest.items() if name not in refused]
        raise results.failure(failed, " ".join(told_of))
    whys = {n: Reason(reason=e.reason, remedy=e.remedy) for n, e in {**refused, **unmet}.items()}
    if not any(row.chosen for row in rows):
        raise nothing_left({**planned.refused, **whys})
    shop.emit(Stage(name="pack", title="Packing the bundle"))
    chosen = [each for each in tried.trials if choices[each.candidate].chosen]
    targets = tuple(dict.fromkeys(each.candidate.target for each in chosen))
    given = described.identity.given
    with report.beside(drawn, place):
        size = pack.pack(
            planned.output,
            results.contents(planned, material, described, targets, source),
            [results.finished(each) for each in chosen],
            lock=draft(
                request,
                targets,
                shop.children.dependencies(),
                source=given,
                bridges={t: shop.bridges[t] for t in targets if t in shop.bridges},
            ),
        )
    converted = None if tried.converted is None else round(tried.converted - began, 2)
    return msgspec.structs.replace(
        done, bytes=size, seconds=round(time.monotonic() - began, 2), converted=converted
    )


def _failed(figures: list[Figures], planned: Plan) -> list[Figures]:
    """Failed checks that mean that there is no bundle. In a search, one of int8 is a result like
    any other; a float artifact that is wrong is a fault of its conversion."""
    if planned.request.searching:
        return [e for e in figures if e.shortfall and e.candidate.precision == "fp32"]
    return fatal(figures, auto=planned.request.precision == "auto")


def _unmet(tried: Tried, choices: dict[Candidate, Choice], planned: Plan) -> dict[str, Refusal]:
    """Targets of which something was tried, and nothing is within the limits."""
    request = planned.request
    found: dict[str, Refusal] = {}
    for target in dict.fromkeys(each.candidate.target for each in tried.trials):
        mine = [each for each in tried.trials if each.candidate.target == target]
        if not any(choices[each.candidate].chosen for each in mine):
            only = "mixed" if request.precision == "mixed" else None
            found[target] = results.unmet(mine, request.limits, only=only)
    return found
