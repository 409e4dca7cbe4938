"""A run trained again from its folder, compared with the original, and why they may differ."""
