"""Transforms of audiomentations as a stage, run in worker processes."""
