"""One chat request and its reply: bodies, schemas, what a server takes, and how it fails."""
