"""A run: train, evaluate, report."""
