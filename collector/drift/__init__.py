"""Drift statistics, all pure: no clock, no database, no network.

``effects`` and ``chi2`` describe one window against the baseline; ``conformal`` and ``evidence``
turn a sequence of windows into evidence; ``monitor`` is the life of one stream from its first
window to an alarm and back; ``budget`` turns the fleet's false-alarm budget into thresholds.
"""
