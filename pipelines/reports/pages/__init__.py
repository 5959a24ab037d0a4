"""Rendering self-contained HTML pages in one style."""
