"""A checkpoint of any wav2vec2 family: where it lies, what it is, and the vocabulary of its head."""
