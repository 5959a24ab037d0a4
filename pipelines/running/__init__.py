"""Running, planning and watching an experiment."""
