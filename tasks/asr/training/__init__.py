"""What a training does: batches, augmentation, updates, what learns, several processes."""
