"""The control plane as one backup: etcd, keys and files of the node; proven and restored."""
