"""Making a bundle again from its lock, and comparing every byte.

What was measured (latency, memory) and the moment of the export cannot come out twice; they, and
what the checks found out about the same bytes, are taken over from the bundle. Everything else is
made anew, without the cache: the source read, the samples hashed, the artifacts converted, golden
vectors and statistics computed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from edgeml.bundle import Artifact, Bundle, Requirement, describe, open_bundle, write_bundle
from edgeml.bundle.archive import LOCK
from edgeml.errors import BundleError, EdgemlError, SourceError
from edgeml.exporter import naming, pack, results
from edgeml.exporter.bridges import bridges
from edgeml.exporter.candidates import Candidate
from edgeml.exporter.children import Children
from edgeml.exporter.compile import Converters, Jobs
from edgeml.exporter.events import Cause, Difference, Done, Stage
from edgeml.exporter.intake import Material, Stock, take_in
from edgeml.exporter.plan import Emit, Plan, Workshop, plan
from edgeml.exporter.repeat import keys, lock
from edgeml.exporter.repeat.changes import since_locked
from edgeml.exporter.request import ExportRequest, Reproduction
from edgeml.exporter.steps import Steps
from edgeml.exporter.trial import compile_job
from edgeml.targets.compiling import CompileResult
from edgeml.targets.registry import target

_FLAGS = {"model": "--model", "calibration": "--calibration", "evaluation": "--evaluate"}


def reproduce(request: Reproduction, *, emit: Emit, children: Children, folder: Path) -> Done:
    """Make a bundle again.

    Args:
        request: which.
        emit: takes the events: a :class:`Difference` a member that is not the same, then a
            :class:`Cause` for each thing that explains it.
        children: where the work is done.
        folder: an empty one.

    Returns:
        The last event; its status is 0 where all bytes are the same, else 1.

    Raises:
        BundleError: the bundle has no lock.
        SourceError: what it was made from is not there.
        EdgemlError: an artifact could not be made this time.
    """
    began = time.monotonic()
    bundle = open_bundle(Path(request.bundle))
    then = _lock(bundle)
    rebuilt = folder / "rebuilt.edgeml"
    if request.output:
        named = bundle.manifest
        rebuilt = naming.destination(request.output, named.name, named.version)
        naming.apart("-o", rebuilt, {"BUNDLE": request.bundle})
    again = _request(then, request, bundle, folder)
    shop = Workshop(emit=emit, children=children, folder=folder)
    planned, material, made, interpreters = _make(again, then, shop)
    emit(Stage(name="pack", title="Packing and comparing"))
    now = lock.draft(
        planned.request,
        then.targets,
        children.dependencies(),
        source=lock.hashes(planned.request),
        bridges={name: interpreters[name] for name in then.targets if name in interpreters},
    )
    now = msgspec.structs.replace(now, request=then.request)
    old = bundle.manifest
    manifest, members = pack.assemble(
        msgspec.structs.replace(
            results.contents(
                planned,
                material,
                results.describe(
                    material,
                    results.identify(planned, material),
                    results.observe(planned, material),
                ),
                then.targets,
                old.provenance.source_accuracy,
            ),
            name=old.name,
            version=old.version,
        ),
        [_packed(artifact, made[artifact.id]) for artifact in old.artifacts],
        lock=now,
        created=old.created,
    )
    naming.make_folder(rebuilt.parent)
    write_bundle(rebuilt, manifest, members)
    same = open_bundle(rebuilt).sha256 == bundle.sha256
    if not same:
        _explain(bundle, then, rebuilt, members, emit)
    return Done(
        bundle=str(rebuilt if request.output else bundle.path.resolve()),
        name=old.name,
        version=old.version,
        bytes=rebuilt.stat().st_size,
        seconds=round(time.monotonic() - began, 1),
        status=0 if same else 1,
    )


def _lock(bundle: Bundle) -> lock.Lock:
    if bundle.manifest.lock is None:
        raise BundleError(
            f"{bundle.path.name} holds no edgeml.lock",
            expected="a bundle that says what it was made from",
            remedy="It was made by an edgeml before locks: export the model again.",
        )
    return lock.decode(bundle.read(LOCK))


def _request(then: lock.Lock, wanted: Reproduction, bundle: Bundle, folder: Path) -> ExportRequest:
    changes = {
        "model": wanted.model,
        "calibration": wanted.calibration,
        "evaluation": wanted.evaluation,
    }
    found = lock.request_again(then, changes)
    for field in keys.NAMED:
        text: str = getattr(found, field) or ""
        if field in then.source and keys.named_path(text)[0] is None:
            flag = _FLAGS.get(field)
            raise SourceError(
                f"There is no {text}, which {bundle.path.name} was made from",
                expected="the files of the export, as seen from this folder",
                remedy=f"Say where it is with {flag}." if flag else "Put it there again.",
            )
    return msgspec.structs.replace(
        found,
        targets=then.targets,
        output=str(folder / "rebuilt.edgeml"),
        report="",
        minimize="",
        cache=False,
        name=bundle.manifest.name,
    )


def _make(
    again: ExportRequest, then: lock.Lock, shop: Workshop
) -> tuple[Plan, Material, dict[str, CompileResult], Mapping[str, Path]]:
    """Convert by the recipes of the lock; artifacts by their ids, and the interpreters of other
    toolchains that they went through, by target."""
    planned = plan(again)
    wanted = [Candidate(each.target, each.precision, each.keep_float) for each in then.artifacts]
    names = tuple(dict.fromkeys(each.target for each in wanted))
    kind = planned.model.kind
    with contextlib.ExitStack() as stack:
        interpreters = stack.enter_context(bridges(names, kind, shop.emit))
        converters = stack.enter_context(Converters(wanted, kind, shop.children))
        converted = Steps(shop.emit)

        def begin(stock: Stock) -> None:
            nonlocal interpreters
            if stock.source.kind != kind:  # it showed only when the model was opened
                interpreters = stack.enter_context(bridges(names, stock.source.kind, shop.emit))
            jobs: dict[str, Jobs] = {}
            for each in wanted:
                own = msgspec.structs.replace(
                    shop, folder=shop.folder / each.id, bridges=interpreters
                )
                job = (each, compile_job(each, stock, own))
                jobs[each.target] = [*jobs.get(each.target, ()), job]
            converters.begin(jobs, done=lambda candidate, _: converted(str(candidate)))

        material = take_in(planned, shop, begin, check=lambda _: None)
        converted.open(Stage(name="compile", title="Converting", steps=len(wanted)))
        outcomes = converters.finish()
    made: dict[str, CompileResult] = {}
    for candidate, outcome in outcomes.items():
        if isinstance(outcome, EdgemlError):
            raise outcome
        made[candidate.id] = outcome
    return material.plan, material, made, interpreters


def _packed(was: Artifact, made: CompileResult) -> pack.Packed:
    members = {f"artifacts/{was.id}/{file.name}": file.read_bytes() for file in made.files}
    return pack.Packed(
        artifact=msgspec.structs.replace(
            was,
            files=tuple(describe(name, content) for name, content in members.items()),
            inputs=made.inputs,
            outputs=made.outputs,
            requires=Requirement(packages=target(was.target).packages, options=made.options),
        ),
        members=members,
    )


def _explain(
    bundle: Bundle, then: lock.Lock, rebuilt: Path, members: Mapping[str, bytes], emit: Emit
) -> None:
    """Say which members differ, and what is not as it was."""
    payload = 0
    new = open_bundle(rebuilt)
    old = {file.path: file for file in bundle.manifest.files()}
    for name in sorted(old.keys() | members.keys()):
        was = bundle.read(name) if name in old else b""
        now = members.get(name, b"")
        if was != now:
            payload += name != LOCK
            emit(
                Difference(member=name, bytes=len(was), bytes_now=len(now), first=_first(was, now))
            )
    fields = [
        name
        for name in msgspec.structs.asdict(bundle.manifest)
        if getattr(bundle.manifest, name) != getattr(new.manifest, name)
    ]
    emit(Difference(member="manifest.json", fields=tuple(fields)))
    causes = since_locked(then, lock.decode(new.read(LOCK)))
    for kind, text in causes.items():
        emit(Cause(kind=kind, text=text))
    if not causes:
        text = "nothing that is recorded has changed: the conversion does not give the same twice"
        emit(Cause(kind="nothing", text=text))
    elif not payload:
        text = "artifacts, golden vectors and statistics are the same, byte for byte: what differs"
        emit(Cause(kind="record", text=f"{text} is the record of what made them"))


def _first(was: bytes, now: bytes) -> int:
    """Offset of the first byte that differs."""
    low, high = 0, min(len(was), len(now))
    while low < high:  # the first byte that differs is in the first half, or it is not
        middle = (low + high) // 2
        if was[low : middle + 1] == now[low : middle + 1]:
            low = middle + 1
        else:
            high = middle
    return low
