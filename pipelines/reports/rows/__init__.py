"""The page on which rows of a data set are browsed."""
