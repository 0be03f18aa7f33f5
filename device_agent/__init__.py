"""The device agent: runs a bundle within its budgets, and says what its inputs look like.

A folder a concern:

* ``serving``: one model's way from request to answer: queue, deadline, worker, window
* ``install``: from a bundle to an artifact that may serve here
* ``worker``: the process that holds a runtime, and the agent's side of it
* ``limits``: what a worker may use of the machine, and who holds it to that
* ``inputs``: where frames come from besides a local call
* ``local``: how programs on the same device call a model
* ``uplink``: what must reach the collector, and the connection that it takes

Cores decide and touch nothing (admission, restarts, windows, delivery, selection, latency); thin
edges do the touching. :mod:`~edgeml.device_agent.serving.service` holds one model together,
:mod:`~edgeml.device_agent.agent` the whole.
"""
