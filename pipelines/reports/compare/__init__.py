"""The comparison of evaluated runs: which runs, and the page that sets them side by side."""
