"""The agent under three times the load that it can take, for a minute.

    python benchmarks/overload.py [--seconds S] [--times N]

First the capacity: what programs get through that call one after another. Then requests come at N
times that rate, at random moments (Poisson), whether earlier ones have been answered or not, from
programs that each have a connection to the agent's socket. The deadline is eight inferences.
Wanted: of what is admitted at least 99 % is answered in time, the rest is refused within a
millisecond, and memory stays flat.

*Refused* is what the agent turns away on arrival; *shed later* is what it had taken and then saw to
have no chance; both times are the caller's, with the way there and back. A program that is held up
by an answer asks the next time late: *behind* says how much of the load that was.

Prints the machine and a Markdown table for docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
from agents import MODELS, agent, machine, make_bundle, resident_mb, small_frames

from edgeml import Client
from edgeml.device_agent.local.client import CallError

BUSY = MODELS / "busy-8x8.onnx"
PROGRAMS = 24
INFERENCES = 8
"""That fit into the deadline."""
QUEUE = 8
SERVED, SHED, DROPPED, LATE = "served", "shed", "dropped", "late"
REFUSALS = ("requests wait already", "it would end", "another one that was admitted")
"""What the agent says where it turns a request away on arrival; later it has other reasons."""
BEHIND_S = 0.005


class Asked(msgspec.Struct, frozen=True, array_like=True):
    """A request: what became of it, what it took, and how late it was asked."""

    outcome: str
    took_s: float
    behind_s: float


def main() -> None:
    parser = argparse.ArgumentParser(description="The agent under overload.")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--times", type=float, default=3.0, help="of the capacity")
    arguments = parser.parse_args()
    frames = small_frames()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = make_bundle(folder, BUSY, frames, layout="NCHW", name="busy")
        with agent("--bundle", bundle) as running:
            capacity = measure_capacity(running.socket)
        deadline_ms = INFERENCES * 1000 / capacity
        config = folder / "agent.toml"
        config.write_text(
            f'[[model]]\nbundle = "{bundle}"\ndeadline_ms = {deadline_ms}\nqueue = {QUEUE}\n'
        )
        with agent("--config", config) as running:
            memory: list[float] = []
            done = threading.Event()
            sampler = threading.Thread(target=sample, args=(running.pid, memory, done))
            sampler.start()
            rate = arguments.times * capacity
            asked = overload(running.socket, rate=rate, seconds=arguments.seconds)
            done.set()
            sampler.join()
    report(asked, memory, capacity=capacity, deadline_ms=deadline_ms, seconds=arguments.seconds)


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


def overload(socket: os.PathLike[str], *, rate: float, seconds: float) -> list[Asked]:
    """Ask at random moments, ``rate`` a second."""
    moments = arrivals(rate, seconds)
    lock = threading.Lock()
    asked: list[Asked] = []
    ready = threading.Barrier(PROGRAMS)
    start = [0.0]

    def program() -> None:
        client, frame = Client(socket, "busy"), small_frames(1)
        if ready.wait() == 0:
            start[0] = time.perf_counter()
        ready.wait()
        while True:
            with lock:
                moment = next(moments, None)
            if moment is None:
                return
            due = start[0] + moment
            time.sleep(max(0.0, due - time.perf_counter()))
            begin = time.perf_counter()
            outcome = SERVED
            try:
                client.infer({"image": frame})
            except CallError as error:
                outcome = outcome_of(error)
            asked.append(Asked(outcome, time.perf_counter() - begin, begin - due))

    programs = [threading.Thread(target=program) for _ in range(PROGRAMS)]
    for one in programs:
        one.start()
    for one in programs:
        one.join()
    return asked


def outcome_of(error: CallError) -> str:
    """What the agent made of a request that it did not serve."""
    if error.status == 504:
        return LATE
    if error.status != 503:
        raise error
    return SHED if any(reason in str(error) for reason in REFUSALS) else DROPPED


def arrivals(rate: float, seconds: float) -> Iterator[float]:
    """Moments of a Poisson process."""
    random, moment = np.random.default_rng(2), 0.0
    while (moment := moment + random.exponential(1 / rate)) < seconds:
        yield moment


def sample(pid: int, memory: list[float], done: threading.Event) -> None:
    """The resident set of the agent and its worker, each second."""
    while not done.wait(1.0):
        memory.append(resident_mb(pid, children=True))


def report(
    asked: list[Asked],
    memory: list[float],
    *,
    capacity: float,
    deadline_ms: float,
    seconds: float,
) -> None:
    """The table."""
    times: dict[str, list[float]] = {name: [] for name in (SERVED, SHED, DROPPED, LATE)}
    for one in asked:
        times[one.outcome].append(one.took_s * 1000)
    refused = np.asarray(times[SHED] or [0.0])
    admitted = len(asked) - len(times[SHED])
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
    print(f"| refused | {len(times[SHED])} |")
    print(f"| refused within 1 ms | {np.mean(refused < 1.0):.2%} |")
    p50, p99 = np.quantile(refused, [0.5, 0.99])
    print(f"| refusal, p50 and p99 | {p50:.2f} ms, {p99:.2f} ms |")
    print(
        f"| memory, from the tenth second to the end | {settled[0]:.1f} to {settled[-1]:.1f} MB |"
    )


if __name__ == "__main__":
    main()
