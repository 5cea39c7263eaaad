"""Translates text of one language into sentence pairs for trainings."""
