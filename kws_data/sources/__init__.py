"""Where data sets come from: published archives, folders, and synthetic speech."""
