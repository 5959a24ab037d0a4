"""Commands that set results of several runs side by side."""
