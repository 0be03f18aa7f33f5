"""ONNX graphs into SavedModels that compute the same, by onnx2tf.

A program of its own: it runs with the interpreter of the toolchain ``onnx2tf``, which holds no
edgeml, so that what is imported here is of this folder (relative), NumPy, or found by name when it
is needed. :mod:`.serving` answers requests, :mod:`.converting` one of them: it draws inputs
(:mod:`.draws`), has onnx2tf convert the graph (:mod:`.graphs`), and compares the two
(:mod:`.comparing`).
"""
