"""What lies on disk: a run's folder and its files, records of sweeps, and finding them."""
