"""The commands of ``attendant-export``: they turn arguments into calls of the other packages."""
