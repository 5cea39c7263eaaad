"""Reads text, trains tokenizers and makes batches. Does not depend on models."""
