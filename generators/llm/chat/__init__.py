"""Chat requests and replies: bodies, JSON schemas, dialects of servers, failures."""
