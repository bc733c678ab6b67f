"""Pinned tools, and how sam builds with them."""
