"""What the project claims about speed, as commands anyone can run."""
