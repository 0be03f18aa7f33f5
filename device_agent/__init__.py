"""The device agent: runs a bundle within its budgets, and reports on it without losing a window.

Pure cores decide and touch nothing; time comes in as an argument:

* :mod:`~edgeml.device_agent.selection`: which artifacts to try, in which order
* :mod:`~edgeml.device_agent.admission`: which request runs, waits or is refused
* :mod:`~edgeml.device_agent.latency`: how long the next one will take
* :mod:`~edgeml.device_agent.restarts`: when a worker is started again, and when no more
* :mod:`~edgeml.device_agent.windows`: when a window ends and what is in it
* :mod:`~edgeml.device_agent.delivery`: which windows to send, and to send again
* :mod:`~edgeml.device_agent.requests`, :mod:`~edgeml.device_agent.oip`: what a caller's data means

Thin edges touch: :mod:`~edgeml.device_agent.worker` (processes, shared memory),
:mod:`~edgeml.device_agent.watch` (resident sets), :mod:`~edgeml.device_agent.outbox` (SQLite),
:mod:`~edgeml.device_agent.uplink` (MQTT), :mod:`~edgeml.device_agent.local_api` (HTTP),
:mod:`~edgeml.device_agent.folder` (files). :mod:`~edgeml.device_agent.service` holds one model
together, :mod:`~edgeml.device_agent.agent` the whole.
"""
