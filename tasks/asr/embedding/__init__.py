"""Vectors of recordings, and what they are good for: who is the same, what occurs twice."""
