"""One way to ask a language model, whatever runs it, and the whole road from speech to tool call."""
