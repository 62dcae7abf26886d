"""What happens when things break: orders are made while a fault is injected; then it is counted who was lost or hurt."""
