"""Core ML, for Apple's devices: made anywhere, run on a Mac alone."""
