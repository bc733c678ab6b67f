"""What functions and the platform wrote: REPORT lines, platform records, records of the work itself."""
