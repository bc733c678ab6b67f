"""Load on the pipeline: Locust sends at an offered rate, and the books of what came of it balance."""
