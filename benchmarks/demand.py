"""One model under constant demand: what the agent gets through beside the bare loop, and what its
statistics take meanwhile. Part of ``agent_overhead.py``."""

from __future__ import annotations

import contextlib
import importlib
import math
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from agents import Array, Running, agent, bare_session, camera_frames, make_bundle

from edgeml import Client
from edgeml.targets.runtime import NamedSession

CLIENTS = 3
"""Programs that call at the same time, so that a request is always waiting."""
FRAMES = 32
"""That each of them asks for in a round."""
ROUNDS = 5
"""Of each agent."""


def demand(folder: Path, entry: Path, config: Path, *, agents: int) -> None:
    """Print both as Markdown tables.

    An agent, and the session beside it, is fast or slow for as long as it lives, by where its
    memory came to lie: so several of both are started. In a round of one comes half of the bare
    loop, the agent, and the other half: a machine that goes from fast to slow meanwhile does so
    for both. The interval of the median of the agents' ratios is that of its order statistics,
    which supposes nothing of how they are distributed. Statistics are looked at in a stretch of as
    many requests without anything between: what they may take grows with time, and would with the
    bare loop's, too.

    Args:
        folder: for the bundle.
        entry: MobileNetV2, ONNX.
        config: the agent's.
        agents: how many; at least six, without which there is no interval.
    """
    frames = camera_frames(FRAMES)
    bundle = make_bundle(folder, entry, frames, layout="NHWC", name="mobilenet")
    bare: list[float] = []
    rates: list[float] = []
    ratios: list[float] = []
    counted: list[Array] = []
    for _ in range(agents):
        with bare_session(entry) as session, agent("--config", config, "--bundle", bundle) as one:
            for _ in range(ROUNDS):
                first_s = loop(session, frames[: FRAMES // 2])
                rates.append(throughput(one, frames))
                bare.append(FRAMES / (first_s + loop(session, frames[FRAMES // 2 :])))
            ratios.append(float(np.median(np.divide(rates, bare)[-ROUNDS:])))
            before = look(one)
            throughput(one, frames, times=ROUNDS)
            counted.append(np.subtract(look(one), before))
    low, high = interval(np.asarray(ratios))
    print("\n| MobileNetV2 | agents | bare | agent | ratio | 95 % interval | each |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    print(
        f"| requests/s, {CLIENTS} programs | {agents} | {np.median(bare):.1f} "
        f"| {np.median(rates):.1f} | {np.median(ratios):.3f} | {low:.3f} to {high:.3f} "
        f"| {', '.join(f'{ratio:.2f}' for ratio in sorted(ratios))} |"
    )
    served, looked_at, counting_s, seconds = np.sum(counted, axis=0)
    print("\n| MobileNetV2 | served | looked at | statistics, µs a frame | of one core's time |")
    print("| --- | --- | --- | --- | --- |")
    print(
        f"| {CLIENTS} programs | {served:.0f} | {looked_at:.0f} "
        f"| {1e6 * counting_s / looked_at:.0f} | {counting_s / seconds:.1%} |"
    )


def look(running: Running) -> tuple[int, int, float, float]:
    """Requests served and looked at so far, the seconds that statistics took for those, and the
    moment."""
    (model,) = Client(running.socket, "mobilenet").get("/edgeml/v1/status")["models"]
    moment = time.perf_counter()
    served = model["outcomes"]["served"]
    return served, model["looked_at"], statistics_s(running.pid), moment


def loop(session: NamedSession, frames: Array) -> float:
    """Seconds that the runtime alone takes for all of them."""
    begin = time.perf_counter()
    for frame in frames:
        session.run({"image": frame[None]})
    return time.perf_counter() - begin


def throughput(running: Running, frames: Array, *, times: int = 1) -> float:
    """Requests a second, with several programs that call one after another."""

    def calls() -> None:
        client = Client(running.socket, "mobilenet")
        client.infer({"image": frames[0][None]})
        ready.wait()
        for _ in range(times):
            for frame in frames:
                client.infer({"image": frame[None]})

    ready = threading.Barrier(CLIENTS + 1)
    programs = [threading.Thread(target=calls) for _ in range(CLIENTS)]
    for program in programs:
        program.start()
    ready.wait()
    begin = time.perf_counter()
    for program in programs:
        program.join()
    return CLIENTS * times * len(frames) / (time.perf_counter() - begin)


def statistics_s(pid: int) -> float:
    """Seconds of a core that the agent's thread for statistics has had, by the kernel's account: it
    is the one that makes way for others. NaN where none does, as in the real-time class."""
    spent_s, found = 0.0, False
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):  # it has ended
            if os.sched_getscheduler(int(task.name)) == os.SCHED_BATCH:
                spent_s += int((task / "schedstat").read_text().split()[0]) / 1e9
                found = True
    return spent_s if found else math.nan


def interval(values: Array) -> tuple[float, float]:
    """Of the median, 95 %."""
    stats: Any = importlib.import_module("scipy.stats")
    found = stats.quantile_test(values, q=float(np.median(values)), p=0.5).confidence_interval(0.95)
    return float(found.low), float(found.high)
