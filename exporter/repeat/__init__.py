"""The same export again: the cache, the lock, and making a bundle again to compare."""
