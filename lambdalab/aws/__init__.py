"""AWS as deployed: clients, stacks, templates, settings, queues, logs. Knows no run."""
