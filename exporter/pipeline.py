"""An export from request to bundle: the stages in their order, and what passes between them.

Nothing heavy happens in this process. It decides, keeps the samples and the figures, and tells
:mod:`edgeml.exporter.events`; models are read, converted, run and measured in children.
"""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import msgspec

from edgeml.exporter.bridges import bridges
from edgeml.exporter.bulk import Bulk
from edgeml.exporter.candidates import nothing_left
from edgeml.exporter.children import Children
from edgeml.exporter.compile import Converters
from edgeml.exporter.conclude import conclude
from edgeml.exporter.events import Done, Note, Refusal
from edgeml.exporter.foresight import foresee
from edgeml.exporter.intake import Material, Stock, take_in
from edgeml.exporter.judging import metrics
from edgeml.exporter.plan import Emit, Workshop, plan
from edgeml.exporter.repeat.cache import Cache
from edgeml.exporter.repeat.keys import site_packages
from edgeml.exporter.repeat.shelf import Shelf
from edgeml.exporter.request import ExportRequest
from edgeml.exporter.results import Identity, describe, identify, observe
from edgeml.exporter.searching.search import search
from edgeml.statistics import Baseline


def export(request: ExportRequest, *, emit: Emit, children: Children, folder: Path) -> Done:
    """Export.

    Args:
        request: what is asked for.
        emit: takes the events, from several threads.
        children: where the work is done.
        folder: an empty one for everything that is made on the way.

    Returns:
        The last event, not emitted yet.

    Raises:
        EdgemlError: there is no bundle.
    """
    began = time.monotonic()
    shop = Workshop(emit=emit, children=children, folder=folder)
    planned = plan(request)
    for name, why in planned.refused.items():
        emit(Refusal(target=name, reason=why.reason, remedy=why.remedy))
    if not planned.candidates:
        raise nothing_left(planned.refused)
    names = tuple(dict.fromkeys(each.target for each in planned.candidates))
    kind = planned.model.kind
    foresee(request, children)
    shelf = Shelf(Cache(), planned.name) if request.cache else None
    with contextlib.ExitStack() as stack:
        interpreters = stack.enter_context(bridges(names, kind, emit))
        # A search converts one after another, each when it is its turn.
        at_once = () if request.searching else planned.candidates
        converters = stack.enter_context(Converters(at_once, kind, children, shelf=shelf))
        bulk = None if request.searching else stack.enter_context(Bulk(converters, shop))
        if bulk is not None and children.foreseen:  # one core imports for all
            bulk.stand_by(planned)

        def begin(stock: Stock) -> None:
            nonlocal shop
            found = interpreters
            if stock.source.kind != kind:  # it showed only when the model was opened
                targets = tuple(dict.fromkeys(each.target for each in stock.plan.candidates))
                found = stack.enter_context(bridges(targets, stock.source.kind, emit))
            shop = msgspec.structs.replace(shop, bridges=found)
            for python in found.values():  # whose versions nobody knew when the key was made
                children.depend_on(site_packages(python))
            if bulk is not None:
                bulk.begin(stock, shop)

        judge: metrics.Judge | None = None
        identity: Future[Identity] = Future()
        observed: Future[Baseline | None] = Future()
        beside = stack.enter_context(ThreadPoolExecutor(1))

        def check(material: Material) -> None:
            nonlocal judge, identity, observed
            identity = beside.submit(identify, material.plan, material)
            observed = beside.submit(observe, material.plan, material)
            judge = metrics.judge(
                material.plan.metric,
                material.checkset,
                needed=request.limits.accuracy_drop is not None,
            )
            if judge is None and material.checkset.samples.labels is not None:
                emit(Note(text=metrics.unfit(material.checkset)))
            if bulk is not None:
                bulk.check(material, judge)

        material = take_in(planned, shop, begin, check)
        planned = material.plan
        # Here, since this thread would only wait for conversions now, and behind nobody else works.
        described = describe(material, identity.result(), observed.result())
        if bulk is None:
            tried = search(planned, material, judge, converters, shop)
        else:
            tried = bulk.finish(material)
    if shelf is not None:
        shelf.tell(emit)
    return conclude(planned, material, described, tried, shop, began=began)
