"""Files written whole or not at all, the cache folder, and work shared out among processes."""
