"""Bundles: manifest, model card, export and verification."""
