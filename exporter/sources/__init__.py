"""Reading MODEL: each form becomes a normalised source that the converters take.

:mod:`~edgeml.exporter.sources.forms` tells the forms apart and touches nothing but the file's first
bytes. The others are heavy and run in a child process: ``torch_source``, ``tf_source``,
``onnx_source``, ``tflite_source`` and ``classical_source`` offer ``open_source`` and ``reference``
each; ``objects`` opens what holds an object of any kind (a factory, a pickle) and hands it on.

A normalised source has a kind that targets know (``torch``: a ``.pt2``; ``savedmodel``: a folder;
``onnx``, ``tflite``: a file; ``classical``: ONNX with operators of ``ai.onnx.ml``), named inputs
and outputs, fixed shapes and a batch axis of 1.
"""
