"""Malformed HTTP against both servers of the plane, while real functions have to go on answering rightly."""
