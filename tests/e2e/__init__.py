"""The whole of lambdalab, as a person uses it."""
