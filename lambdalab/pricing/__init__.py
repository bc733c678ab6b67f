"""Dated price sheets, and what something costs by them."""
