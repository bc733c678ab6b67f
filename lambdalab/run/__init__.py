"""A run: begin, measure, resume, conclude."""
