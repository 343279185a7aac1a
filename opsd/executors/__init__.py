"""Ways to have a run happen: a child process, and later a thread or a Kubernetes Job."""
