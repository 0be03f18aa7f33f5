"""The pages: the fleet, and a device with the drift of each statistic over time."""
