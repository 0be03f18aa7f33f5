"""ONNX Runtime with its CUDA execution provider."""
