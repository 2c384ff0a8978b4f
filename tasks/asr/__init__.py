"""The recogniser: pre-training, fine-tuning with CTC, decoding, evaluation and export to ONNX."""
