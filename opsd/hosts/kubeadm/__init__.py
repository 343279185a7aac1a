"""What kubeadm, the kubelet and etcd left on a node: read over SSH, without changing anything."""
