"""Token numbers (int64) into an embedding, beside an input of floats: every target takes them as
they are, in float and in int8, or says that it does not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import torch
from support.conversions import Source, calibration_folder, torch_source

from edgeml.bundle.manifest import Precision
from edgeml.bundle.parity import cosine
from edgeml.errors import RefusedError
from edgeml.targets.compiling import compile_here
from edgeml.targets.registry import TARGETS, can_make
from edgeml.targets.runtime import NamedSession, open_session

RANDOM = np.random.default_rng(0)
FEEDS = {
    "tokens": RANDOM.integers(0, 50, (24, 6)),
    "side": RANDOM.normal(0, 1, (24, 8)).astype("float32"),
}
TABLE = RANDOM.normal(0, 1, (50, 8)).astype("float32")
HEAD = RANDOM.normal(0, 1, (8, 3)).astype("float32")


class Reader(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding.from_pretrained(torch.from_numpy(TABLE))
        self.head = torch.nn.Linear(8, 3, bias=False)
        self.head.weight = torch.nn.Parameter(torch.from_numpy(HEAD.T.copy()))

    def forward(self, tokens, side):
        return self.head(self.table(tokens).mean(1) + side)


def from_torch(folder: Path) -> Source:
    return torch_source(Reader(), FEEDS, ["scores"], folder / "net.pt2")


def from_tensorflow(folder: Path) -> Source:
    module = tf.Module()
    module.table, module.head = tf.Variable(TABLE), tf.Variable(HEAD)

    def serve(tokens, side):
        read = tf.reduce_mean(tf.gather(module.table, tokens), 1) + side
        return {"scores": read @ module.head}

    specs = [
        tf.TensorSpec([1, 6], tf.int64, name="tokens"),
        tf.TensorSpec([1, 8], tf.float32, name="side"),
    ]
    module.serve = tf.function(serve, input_signature=specs)
    tf.saved_model.save(module, str(folder / "net"), signatures={"serving_default": module.serve})
    expected = (TABLE[FEEDS["tokens"]].mean(1) + FEEDS["side"]) @ HEAD
    return Source("savedmodel", folder / "net", FEEDS, {"scores": expected})


MAKERS = {"torch": from_torch, "savedmodel": from_tensorflow}
CELLS = [
    pytest.param(kind, row.name, precision, id=f"{kind}-{row.name}-{precision}")
    for kind in MAKERS
    for row in TARGETS.values()
    for precision in ("fp32", "int8")
    if can_make(row, kind, precision) is None and not row.needs_nvidia
]


@pytest.mark.parametrize(("kind", "target", "precision"), CELLS)
def test_tokens_stay_whole_numbers(kind: str, target: str, precision: Precision, tmp_path: Path):
    source = MAKERS[kind](tmp_path)
    calibration = calibration_folder(tmp_path / "calibration", *FEEDS.values())
    job = source.job(precision, tmp_path / "work", calibration)
    if target == "coreml":
        with pytest.raises(RefusedError, match="'tokens' is int64") as caught:
            compile_here(target, job)
        assert "int32 in place of int64" in caught.value.remedy
        return
    made = compile_here(target, job)
    session = open_session(target, made.files[0], options=made.options)
    with NamedSession(session, made.inputs, made.outputs) as named:
        assert [info.dtype for info in named.inputs] == ["int64", "float32"]
        rows = [
            named.run({name: array[row : row + 1] for name, array in FEEDS.items()})["scores"]
            for row in range(24)
        ]
    found, expected = np.concatenate(rows), source.expected["scores"]
    assert cosine(found.ravel(), expected.ravel()) > (0.99999 if precision == "fp32" else 0.99)
