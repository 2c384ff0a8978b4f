"""Speech recognised while it is spoken: streaming checkpoints, caches, partial texts. No command."""
