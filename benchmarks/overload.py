"""The agent under three times the load that it can take, for a minute.

    python benchmarks/overload.py [--seconds S] [--times N] [--awake MS] [--causes] [--apart]
        [--first]

First the capacity: what programs get through that call one after another. Then requests come at N
times that rate, at random moments (Poisson), whether earlier ones have been answered or not, from
programs, each a process with a connection to the agent's socket. The deadline is eight inferences.
Wanted: of what is admitted at least 99 % is answered in time, the rest is refused within a
millisecond, and memory stays flat.

*Refused* is what is turned away on arrival: *at the door*, where the program saw that it would be,
or by the agent, which then takes the way there and back; *shed later* is what the agent had taken
and then saw to have no chance. Times are the programs'. A program that is held up by an answer asks
the next time late: *behind* says how much of the load that was. A program's garbage collections are
its own, and are left out as ``timeit`` leaves them out: there are none while it asks.

Of those refused after more than a millisecond it is said how many would have been in time but for
what the program itself waited for a core, by the kernel's account (``schedstat(5)`` of a thread).
With ``--causes`` each is put down to the first of these without which it would have been in time:
that; or the machine stood still (:mod:`pauses`); or the thread of the agent that answers this
program waited for a core, or another one of the agent's, which may have had what that one needs; or
these together; or it is *ours*. To look at all that takes the cores' time as well and makes more of
them late: it is for causes, not for figures.

``--awake`` is the agent's ``awake_ms``; with more programs than cores it makes little odds.
``--apart`` has the model alone on the last core and all others on the rest, as it comes to on a
device of more cores. ``--first`` has the programs in the real-time class, as one that may never
be late is: how late the agent makes them, and nothing else, is what is left then.

Prints the machine and a Markdown table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from agents import (
    MODELS,
    Running,
    agent,
    children,
    machine,
    make_bundle,
    resident_mb,
    small_frames,
)
from pauses import Pause, paused_s, watched

from edgeml import Client
from edgeml.device_agent.local.client import CallError

BUSY = MODELS / "busy-8x8.onnx"
PROGRAMS = 24
INFERENCES = 8
"""That fit into the deadline."""
QUEUE = 8
SERVED, TURNED_BACK, REFUSED, DROPPED, LATE = "served", "turned back", "refused", "dropped", "late"
OUTCOMES = (SERVED, TURNED_BACK, REFUSED, DROPPED, LATE)
AT_THE_DOOR = "leaves no room for it"
"""What a program says that saw that it would be refused, and did not ask."""
REFUSALS = ("requests wait already", "it would end", "another one that was admitted")
"""What the agent says where it turns a request away on arrival; later it has other reasons."""
OURS, TOGETHER = "none of these: ours", "these together"
CAUSES = (
    "its program waited for a core",
    "the machine stood still",
    "the agent's thread that answers it waited for a core",
    "another thread of the agent waited for a core",
    TOGETHER,
    OURS,
)
WANTED_S = 0.001
"""For a refusal."""
BEHIND_S = 0.005
ASKS = 20
"""To tell the thread that answers from another that began at the same time."""


class Load(NamedTuple):
    """What programs do.

    Attributes:
        running: the agent.
        moments: to ask at, seconds from the beginning.
        first: from the real-time class.
        causes: note what each request waited for.
    """

    running: Running
    moments: list[float]
    first: bool
    causes: bool


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A request: what became of it, when it was asked, what it took, how late it was asked; and how
    long its program, the agent's thread that answers it, and the one that waited longest of the
    agent's others, waited for a core meanwhile."""

    outcome: str
    begin: float
    took_s: float
    behind_s: float
    waited_s: float
    agent_waited_s: float
    others_waited_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description="The agent under overload.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="of the capacity")
    parser.add_argument("--awake", type=float, default=0.0, help="the agent's awake_ms")
    parser.add_argument("--causes", action="store_true", help="of late refusals")
    parser.add_argument("--apart", action="store_true", help="the model on a core of its own")
    parser.add_argument("--first", action="store_true", help="programs in the real-time class")
    arguments = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    frames = small_frames()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, BUSY, frames, layout="NCHW", name="busy")
        with agent("--bundle", bundle) as running:
            if arguments.apart:
                part(running.pid, cores)
            capacity = measure_capacity(running.socket)
        deadline_ms = INFERENCES * 1000 / capacity
        config = folder / "agent.toml"
        config.write_text(
            f"awake_ms = {arguments.awake}\n"
            f'[[model]]\nbundle = "{bundle}"\ndeadline_ms = {deadline_ms}\nqueue = {QUEUE}\n'
        )
        with agent("--config", config) as running:
            if arguments.apart:
                part(running.pid, cores)
            memory: list[float] = []
            done = threading.Event()
            sampler = threading.Thread(target=sample, args=(running.pid, memory, done))
            sampler.start()
            rate = arguments.times * capacity
            load = Load(
                running, arrivals(rate, arguments.seconds), arguments.first, arguments.causes
            )
            pauses: list[Pause] = []
            with contextlib.ExitStack() as stack:
                if arguments.causes:
                    pauses = stack.enter_context(watched(cores))
                asked = overload(load)
            done.set()
            sampler.join()
    seconds = arguments.seconds
    report(asked, memory, capacity=capacity, deadline_ms=deadline_ms, seconds=seconds)
    if arguments.causes:
        report_causes(asked, pauses, seconds=seconds)


def part(agent_pid: int, cores: Sequence[int]) -> None:
    """Have the agent's worker run on the last of the cores, and all others on the rest."""
    *rest, last = cores
    places = {agent_pid: rest} | {worker: [last] for worker in children(agent_pid)}
    os.sched_setaffinity(0, rest)
    for process, place in places.items():
        for task in Path(f"/proc/{process}/task").iterdir():
            os.sched_setaffinity(int(task.name), place)


def measure_capacity(socket: os.PathLike[str]) -> float:
    """Requests a second that programs get through which always have one waiting."""
    frame = small_frames(1)
    counts: list[int] = []
    seconds = 5.0

    def calls() -> None:
        client, count = Client(socket, "busy"), 0
        end = time.perf_counter() + seconds
        while time.perf_counter() < end:
            client.infer({"image": frame})
            count += 1
        counts.append(count)

    programs = [threading.Thread(target=calls) for _ in range(2)]
    for program in programs:
        program.start()
    for program in programs:
        program.join()
    return sum(counts) / seconds


def overload(load: Load) -> list[Asked]:
    """From programs, each a process."""
    forked = multiprocessing.get_context("fork")
    ready, taken = forked.Barrier(PROGRAMS), forked.Value("q", 0)
    start = forked.Value("d", 0.0)
    answers = forked.SimpleQueue()
    arguments = (load, ready, start, taken, answers)
    programs = [forked.Process(target=program, args=arguments) for _ in range(PROGRAMS)]
    for one in programs:
        one.start()
    asked = [Asked(*entry) for _ in programs for entry in answers.get()]
    for one in programs:
        one.join()
    return asked


def program(
    load: Load,
    ready: Any,
    start: Any,
    taken: Any,
    answers: Any,
) -> None:
    """Ask at the next moment that no other program has taken, until there is none."""
    running, moments, first, causes = load
    client, frame = Client(running.socket, "busy"), small_frames(1)
    tasks = Path(f"/proc/{running.pid}/task")
    with taken:  # one after another: of the callers' threads only this program's is new
        before = set(tasks.iterdir())
        client.places()  # connects
        answering = busiest(set(tasks.iterdir()) - before, client)
    asked: list[tuple[str, float, float, float, float, float, float]] = []
    # A fork has the whole heap that this program had. To look through it takes milliseconds, which
    # would be told as the agent's; and a call leaves no cycles that would want it.
    gc.collect()
    gc.freeze()
    gc.disable()
    if first:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    if ready.wait() == 0:
        start.value = time.perf_counter()
    ready.wait()
    accounts = [os.open("/proc/thread-self/schedstat", os.O_RDONLY)]
    if causes:
        accounts.append(os.open(answering / "schedstat", os.O_RDONLY))
        for thread in set(tasks.iterdir()) - {answering}:
            with contextlib.suppress(FileNotFoundError):  # it has ended since
                accounts.append(os.open(thread / "schedstat", os.O_RDONLY))
    while True:
        with taken:
            number = int(taken.value)
            taken.value = number + 1
        if number >= len(moments):
            break
        due: float = start.value + moments[number]
        time.sleep(max(0.0, due - time.perf_counter()))
        before_s = [waited_s(account) for account in accounts]
        begin = time.perf_counter()
        outcome = SERVED
        try:
            client.infer({"image": frame})
        except CallError as error:
            outcome = outcome_of(error)
        took_s = time.perf_counter() - begin
        after_s = [waited_s(account) for account in accounts]
        own_s, *rest_s = (b - a for a, b in zip(before_s, after_s, strict=True))
        agent_s, others_s = (rest_s[0], max(rest_s[1:])) if causes else (0.0, 0.0)
        asked.append((outcome, begin, took_s, begin - due, own_s, agent_s, others_s))
    answers.put(asked)


def busiest(threads: Iterable[Path], client: Client) -> Path:
    """Which of these threads of the agent answers a client: it runs each time that one asks."""
    before = {thread: runs(thread) for thread in threads}
    for _ in range(ASKS):
        client.ready()
    return max(before, key=lambda thread: runs(thread) - before[thread])


def runs(thread: Path) -> int:
    """How often it was given a core; 0 for one that has ended."""
    try:
        return int((thread / "schedstat").read_text().split()[2])
    except OSError:
        return 0


def waited_s(schedstat: int) -> float:
    """For a core, since the thread began; 0 for one that has ended."""
    try:
        return int(os.pread(schedstat, 64, 0).split()[1]) / 1e9
    except OSError:
        return 0.0


def outcome_of(error: CallError) -> str:
    """What the agent made of a request that it did not serve."""
    if error.status == 504:
        return LATE
    if error.status != 503:
        raise error
    if AT_THE_DOOR in str(error):
        return TURNED_BACK
    return REFUSED if any(reason in str(error) for reason in REFUSALS) else DROPPED


def arrivals(rate: float, seconds: float) -> list[float]:
    """Moments of a Poisson process."""
    random = np.random.default_rng(2)
    moments = np.cumsum(random.exponential(1 / rate, int(2 * rate * seconds) + 10))
    return moments[moments < seconds].tolist()


def sample(pid: int, memory: list[float], done: threading.Event) -> None:
    """The resident set of the agent and its worker, each second."""
    while not done.wait(1.0):
        memory.append(resident_mb(pid, below=True))


def report(
    asked: list[Asked],
    memory: list[float],
    *,
    capacity: float,
    deadline_ms: float,
    seconds: float,
) -> None:
    """The table."""
    times: dict[str, list[float]] = {name: [] for name in OUTCOMES}
    for one in asked:
        times[one.outcome].append(one.took_s * 1000)
    by_agent, at_door = (np.asarray(times[name] or [0.0]) for name in (REFUSED, TURNED_BACK))
    refused = np.asarray(times[REFUSED] + times[TURNED_BACK] or [0.0])
    slow = [one for one in asked if one.outcome in {REFUSED, TURNED_BACK} and one.took_s > WANTED_S]
    waiting = sum(one.took_s - one.waited_s <= WANTED_S for one in slow)
    admitted = len(asked) - len(times[REFUSED]) - len(times[TURNED_BACK])
    # The agent's answer is in time or it is none; what is more is the way back.
    in_time = sum(took <= deadline_ms + 1 for took in times[SERVED])
    behind = sum(one.behind_s > BEHIND_S for one in asked) / len(asked)
    settled = memory[len(memory) // 6 :]
    print(f"{machine()}\n")
    print("| | |\n| --- | --- |")
    print(f"| capacity, requests/s | {capacity:.0f} |")
    print(f"| asked, requests/s | {len(asked) / seconds:.0f} |")
    print(f"| asked more than {BEHIND_S * 1000:.0f} ms behind | {behind:.1%} |")
    print(f"| admitted | {admitted} |")
    print(f"| of these in time, {deadline_ms:.0f} ms | {in_time / max(admitted, 1):.2%} |")
    print(f"| late | {len(times[LATE])} |")
    print(f"| shed later | {len(times[DROPPED])} |")
    print(f"| refused | {len(refused)} |")
    print(f"| refused within 1 ms | {np.mean(refused < 1.0):.2%} |")
    print(f"| of the others, but for their program's wait for a core | {waiting} of {len(slow)} |")
    for name, took in ("all", refused), ("at the door", at_door), ("by the agent", by_agent):
        p50, p99, p999 = np.quantile(took, [0.5, 0.99, 0.999])
        quantiles = f"{p50:.2f}, {p99:.2f}, {p999:.2f} ms"
        print(f"| refusal {name} ({len(took)}), p50, p99, p99.9 | {quantiles} |")
    print(
        f"| memory, from the tenth second to the end | {settled[0]:.1f} to {settled[-1]:.1f} MB |"
    )


def report_causes(asked: list[Asked], pauses: Sequence[Pause], *, seconds: float) -> None:
    """What the late refusals are put down to."""
    causes: Counter[str] = Counter()
    for one in asked:
        if one.outcome in {REFUSED, TURNED_BACK} and one.took_s > WANTED_S:
            cause = cause_of(one, pauses)
            causes[cause] += 1
            if cause == OURS:
                waits = (one.waited_s, one.agent_waited_s, one.others_waited_s)
                found = ", ".join(f"{wait * 1000:.2f}" for wait in waits)
                took = f"{one.took_s * 1000:.2f} ms"
                print(f"ours: {one.outcome}, took {took}; waited {found}", file=sys.stderr)
    print("\n| late refusals, put down to | |\n| --- | --- |")
    for cause in CAUSES:
        print(f"| {cause} | {causes[cause]} of {causes.total()} |")
    longest = max((pause.end - pause.begin for pause in pauses), default=0.0)
    share = sum(pause.end - pause.begin for pause in pauses) / seconds
    print(
        f"| the machine's pauses over .5 ms: number, longest, of one core's time "
        f"| {len(pauses)}, {longest * 1000:.1f} ms, {share:.1%} |"
    )


def cause_of(late: Asked, pauses: Sequence[Pause]) -> str:
    """The first of :data:`CAUSES` that is enough."""
    paused = paused_s(pauses, late.begin, late.begin + late.took_s)
    parts = (late.waited_s, paused, late.agent_waited_s, late.others_waited_s)
    for cause, part in zip(CAUSES, parts, strict=False):
        if late.took_s - part <= WANTED_S:
            return cause
    return TOGETHER if late.took_s - sum(parts) <= WANTED_S else OURS


if __name__ == "__main__":
    main()
