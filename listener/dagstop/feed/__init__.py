"""What brings orders in: LISTEN, sweeps, and rows that become StopOrders."""
