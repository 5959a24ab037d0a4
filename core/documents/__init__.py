"""JSON and YAML: canonical bytes and their digests, strict reading, typed documents."""
