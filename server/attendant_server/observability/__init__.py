"""What operators see of the server: metrics, log lines and spans, never the text of a user."""
