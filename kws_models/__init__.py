"""Feature tensor to logits, in Keras; knows nothing of data or files."""
