"""ONNX Runtime on the CPU, and what the ONNX targets for NVIDIA devices share with it."""
