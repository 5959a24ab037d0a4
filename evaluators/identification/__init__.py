"""Identification: choosing the gold answer among several by likelihood."""
