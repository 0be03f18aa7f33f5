"""What a person does by hand with the stock tools, at their defaults.

    python stock.py TARGET FORM MODEL CALIBRATION.npz OUT

Makes the float and the int8 artifact in this process and prints their files as one JSON document.
Each recipe is what the tool's own introduction shows; nothing is tuned, nothing is checked.

    python stock.py source FORM MODEL SAMPLES.npz OUT

Runs the source model instead, and writes its output to ``OUT/reference.npy``.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
Made = dict[str, list[str]]


def tensorflow_model(form: str, model: str, out: Path) -> Path:
    """A SavedModel folder, whatever the form."""
    if form == "savedmodel":
        return Path(model)
    keras = framework("keras")
    loaded = keras.models.load_model(model, compile=False)
    loaded.export(str(out / "savedmodel"), verbose=False)
    return out / "savedmodel"


def torch_model(model: str) -> Any:
    """The module that a factory makes."""
    path, _, factory = model.rpartition(":")
    sys.path.insert(0, str(Path(path).parent))
    return getattr(framework(Path(path).stem), factory)().eval()


class Only:
    """A module with its one output bare: LiteRT and OpenVINO keep no dictionary keys."""

    def __new__(cls, module: Any) -> Any:
        torch = framework("torch")

        class Bare(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = module

            def forward(self, x: Any) -> Any:
                return next(iter(self.inner(x).values()))

        return Bare().eval()


def tflite(form: str, model: str, samples: Any, out: Path) -> Made:
    if form == "torch":
        litert = framework("litert_torch")
        torch = framework("torch")
        quantizer = framework("ai_edge_quantizer.quantizer")
        recipe = framework("ai_edge_quantizer.recipe")
        module, example = Only(torch_model(model)), torch.from_numpy(samples[:1])
        litert.convert(module, (example,)).export(str(out / "float.tflite"))
        made = quantizer.Quantizer(str(out / "float.tflite"), recipe.static_wi8_ai8())
        ranges = made.calibrate({"serving_default": [{"args_0": one} for one in rows(samples)]})
        made.quantize(ranges).export_model(str(out / "int8.tflite"))
    else:
        tf = framework("tensorflow")
        folder = str(tensorflow_model(form, model, out))
        plain = tf.lite.TFLiteConverter.from_saved_model(folder).convert()
        (out / "float.tflite").write_bytes(plain)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([one] for one in rows(samples))
        (out / "int8.tflite").write_bytes(converter.convert())
    return {"fp32": [str(out / "float.tflite")], "int8": [str(out / "int8.tflite")]}


def openvino(form: str, model: str, samples: Any, out: Path) -> Made:
    ov = framework("openvino")
    nncf = framework("nncf")
    if form == "torch":
        example = framework("torch").from_numpy(samples[:1])
        converted = ov.convert_model(
            torch_model(model), example_input=example, input=list(samples[:1].shape)
        )
    else:
        folder = str(tensorflow_model(form, model, out))
        converted = ov.convert_model(folder, input=[1, *samples.shape[1:]])
    ov.save_model(converted, str(out / "float.xml"))
    quantized = nncf.quantize(converted, nncf.Dataset(list(rows(samples))))
    ov.save_model(quantized, str(out / "int8.xml"))
    return {name: [str(out / f"{stem}.{end}") for end in ("xml", "bin")] for name, stem in PAIRS}


def onnx(form: str, model: str, samples: Any, out: Path) -> Made:
    path = out / "float.onnx"
    if form == "torch":
        torch = framework("torch")
        example = torch.from_numpy(samples[:1])
        made = torch.onnx.export(torch_model(model), (example,), dynamo=True)
        made.save(str(path))
    else:
        tf2onnx = framework("tf2onnx.convert")
        sys.argv = ["", "--saved-model", str(tensorflow_model(form, model, out)), "--output", path]
        sys.argv = [*map(str, sys.argv)]
        tf2onnx.main()
    tools = framework("onnxruntime.quantization")
    name = framework("onnxruntime").InferenceSession(str(path)).get_inputs()[0].name
    left = iter([{name: one} for one in rows(samples)])

    class Reader(tools.CalibrationDataReader):
        def get_next(self) -> Any:
            return next(left, None)

    prepared = out / "prepared.onnx"
    framework("onnxruntime.quantization.shape_inference").quant_pre_process(
        str(path), str(prepared)
    )
    tools.quantize_static(str(prepared), str(out / "int8.onnx"), Reader())
    return {"fp32": [str(path)], "int8": [str(out / "int8.onnx")]}


def source(form: str, model: str, samples: Any, out: Path) -> Made:
    if form == "torch":
        torch = framework("torch")
        with torch.no_grad():
            module = Only(torch_model(model))
            found = [module(torch.from_numpy(one)).numpy() for one in rows(samples)]
    else:
        tf = framework("tensorflow")
        loaded = tf.saved_model.load(str(tensorflow_model(form, model, out)))
        serve = loaded.signatures["serving_default"]
        (name,) = serve.structured_input_signature[1]
        found = [
            next(iter(serve(**{name: tf.constant(one)}).values())).numpy() for one in rows(samples)
        ]
    np.save(out / "reference.npy", np.concatenate(found))
    return {}


PAIRS = (("fp32", "float"), ("int8", "int8"))
RECIPES = {"tflite": tflite, "openvino": openvino, "onnx": onnx, "source": source}


def rows(samples: Any) -> Iterator[Any]:
    """One sample at a time, with a batch axis."""
    return (samples[index : index + 1] for index in range(len(samples)))


def framework(name: str) -> Any:
    """A framework without its types."""
    return importlib.import_module(name)


def main() -> None:
    target, form, model, given, folder = sys.argv[1:]
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the tools print what they like
    with np.load(given) as arrays:
        (name,) = (each for each in arrays.files if each != "labels")
        samples = arrays[name]
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    json.dump(RECIPES[target](form, model, samples, out), answer)
    answer.close()


if __name__ == "__main__":
    main()
