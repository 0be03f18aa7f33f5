"""The drift collector: takes in the fleet's windows, stores each once, and raises drift alarms.

Owns everything central: ``ingest`` (MQTT in, validation), ``store`` (the database), ``drift``
(pure statistics), ``api`` (REST), ``web`` (pages), ``service`` (what starts and stops them), and
``broker``, a small MQTT broker for demos and try-outs.
"""
