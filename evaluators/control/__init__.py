"""What steering does: adherence to the control, and what else changes."""
