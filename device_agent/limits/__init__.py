"""What a worker may use of the machine, and who holds it to that."""
