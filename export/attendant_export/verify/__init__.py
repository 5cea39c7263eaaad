"""Compares graphs with the models that they were exported from, and measures both."""
