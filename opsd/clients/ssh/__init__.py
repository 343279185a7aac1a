"""Log in to machines and run scripts there, without ever hanging on one of them."""
