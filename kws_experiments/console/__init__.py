"""What is printed and logged: the one way to a terminal."""
