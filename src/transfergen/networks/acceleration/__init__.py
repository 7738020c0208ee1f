"""What makes a frozen network fast on a CPU."""
