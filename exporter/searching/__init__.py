"""The search for an artifact within limits: what to try next, and which layers stay float."""
