"""The words in which a measurement is asked for: arms, factors, cells."""
