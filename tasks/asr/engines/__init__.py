"""Audio to logits: the torch checkpoint and the shipped ONNX file behind one interface."""
