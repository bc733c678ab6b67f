"""The emulator as it comes: MiniStack's own server and its own queues."""
