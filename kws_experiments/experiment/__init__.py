"""What a configuration describes, checked and built: its data and its recipe."""
