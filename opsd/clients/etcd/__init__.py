"""Ask etcd how it is and what it holds, without a program of its own."""
