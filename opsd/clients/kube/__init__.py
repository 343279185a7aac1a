"""The Kubernetes API: getting in, calls that cannot hang, objects that cost little."""
