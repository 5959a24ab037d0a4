"""Pages, figures and tables of a run."""
