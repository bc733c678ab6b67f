"""The local execution plane: where functions run on this machine.

``http`` speaks HTTP/1.1, ``runtime_api`` is the API a function sees, ``environment`` is one process group from
start to end, ``cgroup`` limits and measures it, ``pool`` re-uses environments, ``poller`` feeds them from SQS,
``invoke_api`` feeds them from callers, ``logs`` carries their lines to CloudWatch Logs, ``watch`` to a caller who
waits, ``debug`` runs one under a debugger, ``plane`` wires these to a deployed stack.
"""
