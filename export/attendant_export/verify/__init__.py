"""Compares graphs with the models that they were exported from, and evaluates both."""
