"""What went wrong, for people: where int8 collapses, where outputs part, and the smallest model
that a target refuses.
"""
