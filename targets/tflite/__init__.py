"""LiteRT (TensorFlow Lite) on the CPU, through XNNPACK."""
