"""How programs on the same device call a model."""
