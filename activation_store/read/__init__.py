"""Reading a store, and verifying every byte of it."""
