"""What the pre-training of an encoder hears, and the loss for audio without transcripts."""
