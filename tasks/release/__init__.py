"""Releases: is the new version better, where do its files go, which version serves."""
