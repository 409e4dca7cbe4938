"""Sweeps: what Hydra calls around their jobs, and the process that trains each."""
