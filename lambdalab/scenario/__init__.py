"""What the lab knows of a system under test, and how its folder is found."""
