"""A change of the store between two batches: all of it or nothing, in the writer's thread."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy.engine import Connection, Engine
from sqlalchemy.exc import DBAPIError

from edgeml.collector.store.evaluation import Evaluator
from edgeml.errors import CollectorError

T = TypeVar("T")
Change = Callable[[Connection, Evaluator], T]
"""Something to be done in a transaction of its own."""


def carry_out(engine: Engine, evaluator: Evaluator, work: Change[T]) -> T:
    """Do it; afterwards the evaluator remembers nothing of how things were before.

    Raises:
        CollectorError: the database does not take it, or ``work`` refuses.
    """
    try:
        with engine.begin() as connection:
            return work(connection, evaluator)
    except DBAPIError as error:
        raise not_taken(str(error.orig or error)) from error
    finally:
        evaluator.forget()


def not_taken(reason: str) -> CollectorError:
    """What whoever asked for a change is told where the database does not take it."""
    return CollectorError(
        f"the database does not take it: {reason}",
        expected="a database that is neither locked nor full",
        remedy="Nothing was changed. Try again.",
    )
