"""From the broker to the database: subscribe, validate, queue, store, acknowledge."""
