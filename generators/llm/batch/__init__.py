"""Requests through an endpoint's batch API."""
