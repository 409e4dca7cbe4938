"""Figures of clips, trainings, evaluations and streams."""
