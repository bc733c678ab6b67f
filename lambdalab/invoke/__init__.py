"""One invocation: its answer, its lines as they come, a debugger, `sam local`."""
