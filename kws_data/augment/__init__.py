"""Augmentation stages: each draws its parameters with NumPy and applies them, batched, in the graph."""
