"""Recordings of any length: where they are named, read, cut into windows and written as text."""
