"""What a run will do, how long it takes and what it costs, before anything is spent."""
