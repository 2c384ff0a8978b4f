"""Transcripts as corpora write them: what in them is said, and what only transcribers write."""
