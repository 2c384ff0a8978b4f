"""From a merged Hugging Face model to verified GGUF files."""
