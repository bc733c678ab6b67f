"""The emulator as a process of its own: how it is served, and what of it is replaced."""
