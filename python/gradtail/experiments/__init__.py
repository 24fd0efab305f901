"""Whole runs: the demo."""
