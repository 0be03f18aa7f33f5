"""The collector's database: tables, what is written in one transaction, and what is read."""
