"""Files of weights, before a model is made of them: whole, of the right shapes, and never run as code."""
