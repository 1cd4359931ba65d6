"""What may be kept of a sample, and when a machine ran: pure."""
