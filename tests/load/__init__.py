"""Load runs: Locust as processes of its own, against an endpoint that does what a test asks for."""
