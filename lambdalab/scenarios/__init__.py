"""The scenarios whose functions are called: one module each, found by being here (docs/add-a-scenario.md)."""
