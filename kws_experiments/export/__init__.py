"""Trained runs in other formats, and one way to score waveforms with whatever format there is."""
