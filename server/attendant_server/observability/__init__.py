"""Metrics, log lines and spans of the server. They never contain the text of a user."""
