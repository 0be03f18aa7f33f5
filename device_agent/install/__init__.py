"""From a bundle to an artifact that may serve here."""
