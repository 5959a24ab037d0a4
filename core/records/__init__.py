"""The data that packages hand to each other: rows and their files, controls, estimates."""
