"""ONNX Runtime with its TensorRT execution provider."""
