"""Every single-operator model of the ``onnx`` package's backend tests through the targets.

    python benchmarks/operators.py [-t TARGET…] [--only PATTERN] [--every N] [--limit N]
        [--jobs N] [--results FILE] [--show OUTCOME] [--write]

Prints for each target how many came out equal to what the test expects, how many were refused with
a reason, and how many were wrong, which is to be none. The cases run in child processes, some at a
time; one that kills its child, or takes longer than half an hour, is wrong. What
``--results`` holds is not run again. Runs in the toolchain ``export``.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import fnmatch
import gc
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec

sys.path.insert(0, str(Path(__file__).parent))

import page
from operator_cases import Verdict, judge, load, store

from edgeml.targets.registry import target
from edgeml.toolchain import install
from edgeml.toolchain.spec import TOOLCHAINS

TARGETS = ("onnx", "openvino", "tflite")
OUTCOMES = ("equal", "refused", "wrong")
LONGEST_S = 1800.0
"""Of one case. Most take a second; onnx2tf gets a minute of processor time and more, which are
several on a busy machine, before it is ended and the case refused."""


def main() -> int:
    """Run the sweep; returns 1 where anything is wrong."""
    arguments = _arguments()
    if arguments.worker:
        _work(Path(arguments.worker), arguments.pipe)
        return 0
    done = list(_read(arguments.results))
    with tempfile.TemporaryDirectory(prefix="operators-") as name:
        folder = Path(name)
        cases = store(folder, lambda case: any(fnmatch.fnmatch(case, p) for p in arguments.only))
        cases = cases[:: arguments.every][: arguments.limit]
        have = {(verdict.case, verdict.target) for verdict in done}
        todo = [(t, c) for t in arguments.target for c in cases if (c, t) not in have]
        verdicts = [*done, *_sweep(folder, todo, arguments.results, arguments.jobs)]
    wanted = set(cases)
    verdicts = [v for v in verdicts if v.case in wanted and v.target in arguments.target]
    for verdict in verdicts:
        if verdict.outcome == arguments.show:
            print(f"{verdict.target} {verdict.case} [{' '.join(verdict.operators)}]")
            print(f"    {verdict.reason}")
    text = report(verdicts, arguments.target)
    print(text)
    if arguments.write:
        page.write_section("operators", text)
    return int(any(verdict.outcome == "wrong" for verdict in verdicts))


def report(verdicts: Sequence[Verdict], targets: Sequence[str]) -> str:
    """The table of outcomes, and what the refusals of each target are about."""
    counts = collections.Counter((each.target, each.outcome) for each in verdicts)
    lacking = collections.Counter(each.target for each in verdicts if _lacks(each))
    cases = {each: sum(counts[each, outcome] for outcome in OUTCOMES) for each in targets}
    rows = [
        (
            each,
            *(counts[each, outcome] for outcome in OUTCOMES),
            cases[each],
            cases[each] - lacking[each],
        )
        for each in targets
    ]
    heads = (
        "target",
        "converted and equal",
        "refused with reason",
        "wrong",
        "cases",
        "of which it claims the operators",
    )
    packages = ["onnx", "onnxruntime", "openvino"]
    if "tflite" in targets:
        packages += ["tensorflow", "ai-edge-litert"]
    parts = [page.setting(*packages), page.table(heads, rows)]
    for name in targets:
        reasons = collections.Counter(
            _kind(each.reason)
            for each in verdicts
            if each.target == name and each.outcome == "refused"
        )
        if reasons:
            rows = [(count, reason) for reason, count in reasons.most_common(12)]
            rest = sum(reasons.values()) - sum(count for count, _ in rows)
            rows += [(rest, "other reasons, each of fewer cases")] if rest else []
            parts += [f"Refused for `{name}`:", page.table(("cases", "reason"), rows)]
    return "\n\n".join(parts)


def _lacks(verdict: Verdict) -> bool:
    """Whether a case was refused because there is no such operator."""
    return verdict.outcome == "refused" and " has no operator for " in verdict.reason


# Of the road to tflite, where there are many operators of each kind.
_KINDS = (
    (r"onnx2tf has no operator for", "onnx2tf has no operator for …, which the model needs"),
    (r"LiteRT has no operator for", "LiteRT has no operator for …, which the model needs"),
    (
        r"onnx2tf cannot convert .*: (its own code fails|it gives up)",
        "onnx2tf's own code fails at …",
    ),
    (r"onnx2tf cannot convert .*: it takes more than", "onnx2tf takes too long"),
    (r"onnx2tf cannot convert .* is fed its input", "Weights or shapes are fed to …"),
    (
        r"onnx2tf makes a model that TensorFlow",
        "onnx2tf makes a model that TensorFlow does not run",
    ),
    (r"onnx2tf makes a model that", "onnx2tf makes a model that computes something else"),
    (r"LiteRT computes something else", "LiteRT computes something else than the ONNX model"),
    (r"What onnx2tf makes", "What onnx2tf makes of the model could not be checked"),
)


def _kind(reason: str) -> str:
    """A reason without the names and numbers that tell one case from another."""
    for pattern, kind in _KINDS:
        if re.match(pattern, reason):
            return kind
    # What follows the file's name is the reason.
    said = re.sub(
        r"^ONNX Runtime cannot load .*?(Provider: (\[.*? failed:)?)", "ONNX Runtime: ", reason
    )
    text = re.split(r"(?<=[a-z\]')])[.] |(?<=[a-z\]')]): (?!ONNX)", said, maxsplit=1)[0]
    text = text.partition(" (output ")[0]
    return re.sub(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\d+", "…", text).replace("|", "/")[:160]


def _sweep(
    folder: Path, todo: list[tuple[str, str]], results: Path | None, jobs: int
) -> list[Verdict]:
    """Run cases in children, so many at a time."""
    lock = threading.Lock()
    verdicts: list[Verdict] = []
    # Each target's cases stay together, so that a child imports what one target needs.
    queues = [iter(todo[index::jobs]) for index in range(jobs)]

    def take(verdict: Verdict) -> None:
        with lock:
            verdicts.append(verdict)
            if results is not None:
                with results.open("ab") as stream:
                    stream.write(msgspec.json.encode(verdict) + b"\n")
            if sys.stderr.isatty() or len(verdicts) % 100 == 0:
                print(f"\r{len(verdicts)} of {len(todo)} ", end="", file=sys.stderr, flush=True)

    def drive(queue: Iterator[tuple[str, str]]) -> None:
        with contextlib.closing(_Worker(folder)) as worker:
            for target, case in queue:
                take(worker.judge(target, case))

    threads = [threading.Thread(target=drive, args=(queue,)) for queue in queues]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return verdicts


class _Worker:
    """A child that judges one case after another, and a new one where it died."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = -1

    def judge(self, target: str, case: str) -> Verdict:
        process = self._process or self._start()
        assert process.stdin is not None
        process.stdin.write(f"{target} {case}\n".encode())
        process.stdin.flush()
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self._answers], [], [], LONGEST_S)
            chunk = os.read(self._answers, 1 << 16) if ready else b""
            if not chunk:
                return self._lost(target, case, hung=not ready)
            line += chunk
        return msgspec.json.decode(line, type=Verdict)

    def close(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            os.close(self._answers)
            self._process = None

    def _lost(self, target: str, case: str, *, hung: bool) -> Verdict:
        assert self._process is not None
        code = None if hung else self._process.wait()
        self.close()
        how = f"took more than {LONGEST_S:.0f} s" if hung else f"killed its process ({_exit(code)})"
        return Verdict(case=case, target=target, operators=(), outcome="wrong", reason=how)

    def _start(self) -> subprocess.Popen[bytes]:
        reader, writer = os.pipe()
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(self._folder), "--pipe", str(writer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(writer,),
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
        )
        os.close(writer)
        self._answers = reader
        return self._process


def _exit(code: int | None) -> str:
    return signal.Signals(-code).name if code is not None and code < 0 else f"status {code}"


def _work(folder: Path, pipe: int) -> None:
    """In the child: a target and a case a line in, a verdict a line out."""
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=folder)))
        answers = stack.enter_context(os.fdopen(pipe, "wb", 0))
        bridges: dict[str, Path] = {}
        for line in sys.stdin:
            name, case = line.split()
            toolchain = target(name).bridges.get("onnx")
            if toolchain and name not in bridges:
                ready = install.ready(TOOLCHAINS[toolchain], say=lambda _: None)
                bridges[name] = stack.enter_context(ready)
            verdict = judge(load(folder, case), name, scratch, bridge=bridges.get(name))
            gc.freeze()  # TensorFlow's converter has all that was imported collected, twice a case
            answers.write(msgspec.json.encode(verdict) + b"\n")


def _read(results: Path | None) -> Iterable[Verdict]:
    if results is None or not results.exists():
        return ()
    return [msgspec.json.decode(line, type=Verdict) for line in results.read_bytes().splitlines()]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("-t", "--target", nargs="+", default=TARGETS)
    parser.add_argument("--only", nargs="+", default=["*"], help="patterns of cases, test_cast_*")
    parser.add_argument("--limit", type=int, help="no more cases than this")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one case of N")
    parser.add_argument("--jobs", type=int, default=2, help="cases at a time")
    parser.add_argument("--results", type=Path, help="a file of verdicts to add to")
    parser.add_argument("--show", choices=OUTCOMES, help="print each case that ended so")
    parser.add_argument("--write", action="store_true", help="the table, to docs/benchmarks.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--pipe", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
