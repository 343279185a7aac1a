"""May this cluster go to another Kubernetes version, and what would break?"""
