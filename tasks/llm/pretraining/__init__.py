"""Documents for the continued pre-training of a language model: built in, or the user's own text."""
