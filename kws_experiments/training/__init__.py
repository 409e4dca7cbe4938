"""The training loop and its step, initial weights, and the loggers that follow it."""
