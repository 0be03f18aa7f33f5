"""Where ONNX Runtime put the nodes of a graph, and whether that is what was asked for.

Asked for a provider, ONNX Runtime gives what that one lacks to the CPU without a word, or all of it
where the provider does not start. Its own refusal (``session.disable_cpu_ep_fallback``) names no
node; so nodes are asked for where the library tells them (``get_provider_graph_assignment_info``),
and the refusal is made here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edgeml.errors import RefusedError, SourceError

RECORD = "session.record_ep_graph_assignment_info"
STRICT = "session.disable_cpu_ep_fallback"

SHARE = "placement.share"
"""The session option with the least share of nodes, 0..1, that must be on the providers asked for.
Default: all where :data:`STRICT` is 1, else none."""

_NAMED = 20
"""Nodes that a refusal names."""


class Node(NamedTuple):
    """A node of the graph, after ONNX Runtime's own changes to it."""

    provider: str
    operator: str
    name: str


def least_share(options: Mapping[str, str]) -> float:
    """What an artifact expects.

    Raises:
        SourceError: it is no share.
    """
    text = options.get(SHARE, "1" if options.get(STRICT) == "1" else "0")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise SourceError(f"The session option {SHARE} is {text!r}", expected="a number in 0..1")
    return share


def tells(runtime: Any) -> bool:
    """Whether this ONNX Runtime says where its nodes went."""
    return hasattr(runtime.InferenceSession, "get_provider_graph_assignment_info")


def nodes(session: Any) -> list[Node]:
    """Of a session that was made with :data:`RECORD`."""
    return [
        Node(str(part.ep_name), str(node.op_type), str(node.name))
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]


def check(wanted: Sequence[str], got: Sequence[str], found: Sequence[Node], least: float) -> None:
    """Refuse a session that runs elsewhere than asked.

    Args:
        wanted: the providers asked for, best first.
        got: those that the session has.
        found: its nodes; none where ONNX Runtime does not tell.
        least: share of the nodes that must be on ``wanted``.

    Raises:
        RefusedError: the best provider is not there or has no node, or too many are elsewhere; the
            message names them.
    """
    elsewhere = [node for node in found if node.provider not in wanted]
    if not got or got[0] != wanted[0]:
        raise RefusedError(
            f"ONNX Runtime was asked for {wanted[0]} and fell back to "
            f"{', '.join(got) or 'nothing'} without a word{_list(elsewhere, len(found))}",
            remedy="Check the GPU's driver, and that the CUDA, cuDNN and TensorRT libraries are of "
            "the versions that this onnxruntime-gpu was built for.",
        )
    if not found:
        return
    share = 1 - len(elsewhere) / len(found)
    if share < least or (least > 0 and not any(node.provider == wanted[0] for node in found)):
        have = ", ".join(f"{n} on {name}" for name, n in Counter(n.provider for n in found).items())
        raise RefusedError(
            f"{wanted[0]} is not where the nodes are: {have}{_list(elsewhere, len(found))}",
            expected=f"at least {least:.0%} of the nodes on {' and '.join(wanted)}",
            remedy=f"Where that is good enough, say so with the session option {SHARE}; or use "
            "the onnx target on this machine.",
        )


def _list(elsewhere: Sequence[Node], total: int) -> str:
    if not elsewhere:
        return ""
    names = [f"{node.operator} {node.name!r}" if node.name else node.operator for node in elsewhere]
    more = f", and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f" ({len(names)} of {total} nodes: {', '.join(names[:_NAMED])}{more})"
