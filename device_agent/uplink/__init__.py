"""What must reach the collector, and the connection that it takes."""
