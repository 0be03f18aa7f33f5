"""What may be asked of the device over MQTT: whether, once only, and how."""
