"""The samples of an export: read, split, hashed, and put where children find them."""
