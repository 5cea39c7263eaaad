"""Reads models of other projects: one module per family, and what they share."""
