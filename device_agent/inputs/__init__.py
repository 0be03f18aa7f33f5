"""Where frames come from besides a local call."""
