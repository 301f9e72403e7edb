"""Advantages and losses: pure tensor functions, no state and no random numbers."""
