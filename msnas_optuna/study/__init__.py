"""A study file, its parts, and the steps of a search; each module imports what it needs."""
