"""Ranges of a graph's tensors over the calibration samples, for ONNX Runtime's static quantizer.

The quantizer would find them itself, with the same calibrator, by a session on all cores. Its
threads spin while they wait for each other, and the source model runs on another core at that
time: of MobileNetV2 a sample then took 51 ms of a core and 101 by the clock, on one thread 23 of
both. The ranges are the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgeml.targets.frameworks import framework, threads


def found_ranges(model: Any, types: Sequence[str], reader: Any, folder: Path) -> Path:
    """Find the least and the greatest value of each tensor beside nodes of certain types.

    Args:
        model: the float graph.
        types: of the nodes that will be quantized.
        reader: a ``CalibrationDataReader``.
        folder: takes the files.

    Returns:
        A file as ``quantize_static`` takes it for ``calibration_cache_path``.
    """
    onnx = framework("onnx")
    tools = framework("onnxruntime.quantization.calibrate")
    folder.mkdir(parents=True, exist_ok=True)
    graph = folder / "graph.onnx"
    onnx.save(model, str(graph))
    calibrator = _calibrator(tools)(
        graph, types, augmented_model_path=str(folder / "augmented.onnx")
    )
    calibrator.augment_graph()
    calibrator.create_inference_session()
    calibrator.collect_data(reader)
    file = folder / "ranges.json"
    tools.save_tensors_data(calibrator.compute_data(), file)
    return file


def _calibrator(tools: Any) -> Any:
    runtime = framework("onnxruntime")

    class OnFewThreads(tools.MinMaxCalibrater):
        def create_inference_session(self) -> None:
            options = runtime.SessionOptions()
            options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
            options.intra_op_num_threads = threads()
            self.infer_session = runtime.InferenceSession(
                self.augmented_model_path, options, providers=self.execution_providers
            )

    return OnFewThreads
