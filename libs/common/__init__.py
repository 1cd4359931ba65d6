"""What every service shares: contracts, bus, database, doors, clocks, secrets."""
