"""What becomes of data when a claim goes, what is wrong with volumes, and how to get one back."""
