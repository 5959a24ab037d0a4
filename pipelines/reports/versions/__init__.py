"""Pages about versions: what the gate said of one."""
