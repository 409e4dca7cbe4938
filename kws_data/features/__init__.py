"""Keras layers from a batch of waveforms to a batch of features; one module a family, one YAML a choice."""
