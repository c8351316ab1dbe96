"""Deliver notifications: timing, limits on deliveries in flight, and retries."""
