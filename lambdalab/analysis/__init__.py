"""From the files of a run to what is said of it. Reads files, measures nothing."""
