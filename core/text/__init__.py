"""Text that people read: numbers in words, tables, what is safe to print or to publish."""
