"""What commands share: options, printed tables and lines, conversations on the command line."""
