"""What an artifact is worth: checks, metrics, certificates, and which is chosen."""
