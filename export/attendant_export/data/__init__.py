"""Text, tokenizers and batches. Knows no models."""
