"""Training: the loop, the tasks, several processes."""
