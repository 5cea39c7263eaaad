"""What the server does for a caller, without a word about transport."""
