"""Sections of the report of a run: what each shows, and its template."""
