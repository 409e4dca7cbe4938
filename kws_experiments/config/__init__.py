"""The composed configuration, the command behind it, and the process set up as it asks."""
