"""Who may call the collector over HTTP: no web page of others, and beyond loopback only with a
token."""
