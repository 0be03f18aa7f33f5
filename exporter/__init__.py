"""From a trained model to a bundle. Workstation only; runs in the toolchain ``export``.

The stages, a module or folder each: sources → calibrate → candidates → compile → verify → measure →
choose → pack. ``python -m edgeml.exporter`` runs them (:mod:`edgeml.exporter.request` in,
:mod:`edgeml.exporter.events` out); everything heavy happens in child processes
(:mod:`edgeml.exporter.child`).
"""
