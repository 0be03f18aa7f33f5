"""The report of an export, drawn as a picture or a page."""
