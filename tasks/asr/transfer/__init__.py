"""The transfer study: how much data fine-tuning needs, with and without a pre-trained encoder."""
