"""The objects that a configuration describes: its data and its recipe."""
