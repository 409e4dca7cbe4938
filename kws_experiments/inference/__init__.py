"""A trained model, or a front end, on files and in the demo page."""
