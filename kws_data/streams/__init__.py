"""Long recordings made of clips and noise, for training, tuning and tests."""
