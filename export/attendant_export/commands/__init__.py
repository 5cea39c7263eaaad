"""The commands of ``attendant-export``: from arguments to calls of the other packages."""
