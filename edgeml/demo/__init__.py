"""The demo: one fleet on one machine, from a trained model to a drift alarm.

It drives edgeml as its users do, through the command line and the public interfaces of agent and
collector, and takes no short cut past them.
"""
