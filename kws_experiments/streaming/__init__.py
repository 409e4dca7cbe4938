"""Listening to long audio: windows that slide over it, detections, and how good they are."""
