"""The language model line: from a written command to a tool call."""
