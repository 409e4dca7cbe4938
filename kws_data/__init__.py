"""Clips on disk to tf.data batches; knows nothing of models."""
