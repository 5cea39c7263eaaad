"""Collects the pages of the documentation site from the repository; see `__main__`."""
