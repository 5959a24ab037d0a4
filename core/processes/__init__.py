"""Work spread over processes and devices of this machine."""
