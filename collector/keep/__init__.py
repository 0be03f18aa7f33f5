"""Retention: old windows are merged into hours, then days, and in the end they go."""
