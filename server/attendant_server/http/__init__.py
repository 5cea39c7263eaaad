"""The HTTP front door: requests in, application calls, responses out."""
