"""Room of the data: the built-in corpus, manifests, audio, text, validation and preparation."""
