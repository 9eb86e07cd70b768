"""What the domain accepts and refuses, without a database."""
