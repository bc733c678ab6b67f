"""One table of cases and one of scenarios, which the Python and the Go function both pass."""
