"""Commands on what is stored: artifacts and their names, rows, activation stores."""
