"""What happens when things break: orders are made while a fault is injected, then the lost and the hurt are counted."""
