"""The operating system: processors, memory, control groups, standard streams, blocking work."""
