"""README.md's lines of Python do what it says, with a live module, a DataLoader and a sample; an
estimator goes the same way."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.exports import SUPPORT, Models

README = Path(__file__).resolve().parents[2] / "README.md"
BEFORE = """
import sys
sys.path.insert(0, {support!r})
import numpy as np
import torch
from export_torch import digits, trained
from torch.utils.data import DataLoader, TensorDataset

images, labels = map(torch.from_numpy, digits())
loader = DataLoader(TensorDataset(images[-400:], labels[-400:]), batch_size=64)
module, sample = trained(), images[-1]
lines = {lines!r}
exec(lines)
"""
AFTER = """
assert {row.target for row in result.chosen} == {"tflite", "openvino"}, result.chosen
for row in result.chosen:
    assert row.metric == "top-1" and row.accuracy > .9 and row.drop <= .01, row
with torch.no_grad():
    wanted = module.eval()(sample[None])["logits"].numpy()
assert np.abs(outputs["logits"] - wanted).max() < .5, (outputs, wanted)
assert outputs["logits"].argmax() == labels[-1], outputs

first = result.bundle.read_bytes()
exec(lines)
assert any("taken from the cache" in note.text for note in result.notes), result.notes
assert result.bundle.read_bytes() == first

from sklearn.linear_model import LogisticRegression

X = images[:200].numpy().reshape(200, -1)
sure = LogisticRegression(max_iter=50).fit(X, labels[:200])
result = edgeml.export(sure, ["onnx"], calibration=X, precision="fp32", name="sure")
with edgeml.Session(result.bundle, "onnx") as session:
    outputs = session.run(X[3])
assert any(int(np.ravel(each)[0]) == sure.predict(X[3:4])[0] for each in outputs.values()), outputs

try:
    edgeml.export(object(), ["onnx"], calibration=X)
except edgeml.EdgemlError as error:
    print(type(error).__name__, error)
"""


def test_the_lines_of_python_run(models: Models, tmp_path: Path):
    (lines,) = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "tmp").mkdir()
    ended = subprocess.run(
        [sys.executable, "-c", BEFORE.format(support=str(SUPPORT), lines=lines) + AFTER],
        cwd=tmp_path,
        env={
            **os.environ,
            "EXPORT_TEST_FOLDER": str(models.torch),
            "EDGEML_CACHE": str(tmp_path / "cache"),
            "TMPDIR": str(tmp_path / "tmp"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert ended.stdout.startswith("SourceError The model is of type object.")
    assert not list((tmp_path / "tmp").glob("edgeml-*"))  # no temporary folder is left
