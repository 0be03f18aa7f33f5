"""One model's way from request to answer: queue, deadline, worker, window."""
