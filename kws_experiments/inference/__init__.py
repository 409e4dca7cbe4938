"""Apply a trained model, or a front end, to audio files and in the demo page."""
