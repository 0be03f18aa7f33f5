"""What the children of the tests are told to do."""

import importlib
import os
import signal
import subprocess
import sys
import time

import msgspec


class Order(msgspec.Struct, frozen=True):
    """Something to do."""

    text: str = ""
    number: int = 0


def echo(order: Order) -> Order:
    sys.stdout.write("chatter of a framework\n")
    sys.stderr.write("on both streams\n")
    return order


def pid(order: Order) -> int:
    del order
    return os.getpid()


def crash(order: Order) -> int:
    os.kill(os.getpid(), signal.SIGSEGV)
    return order.number


def killed(order: Order) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return order.number


def leave(order: Order) -> int:
    os._exit(order.number)


def fail(order: Order) -> int:
    raise ValueError(order.text)


def refuse(order: Order) -> int:
    from edgeml.errors import RefusedError

    raise RefusedError(order.text, expected="something else", remedy="Do that.")


def exhaust(order: Order) -> int:
    raise MemoryError


def hang(order: Order) -> int:
    time.sleep(3600)
    return order.number


def work(order: Order) -> int:
    """Uses the processor for a while, longer than a hanging child may idle."""
    end = time.process_time() + 3
    while time.process_time() < end:
        sum(range(10_000))
    return order.number


def ask(order: Order) -> str:
    return input(order.text)


def start_another(order: Order) -> int:
    """A process of its own that would outlive this one."""
    return subprocess.Popen(["sleep", "3600"]).pid


def look(order: Order) -> int:
    """What an expression is here."""
    known = sys.modules.get("slow_library")
    if known is None and "sys.modules" not in order.text:
        known = importlib.import_module("slow_library")
    return int(eval(order.text, {"os": os, "sys": sys, "slow_library": known}))
