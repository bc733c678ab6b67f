"""The report in a real, headless browser."""
