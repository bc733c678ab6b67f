"""What lies in a run directory: its files, their rows, and how they are written and read."""
