"""Everything that can be known before work begins: `malgil check`, and the first seconds of `malgil run`."""
