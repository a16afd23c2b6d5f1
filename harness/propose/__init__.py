"""One proposer a file."""
