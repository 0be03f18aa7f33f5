"""A worker process a model: the only hard bound on an inference is to kill what runs it.

:mod:`~edgeml.device_agent.worker.layout` and :mod:`~edgeml.device_agent.worker.wire` are what both
sides share, :mod:`~edgeml.device_agent.worker.__main__` is the child, and
:mod:`~edgeml.device_agent.worker.parent` the agent's side of it.
"""
