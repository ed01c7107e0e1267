"""Processes, signals and ranks."""
