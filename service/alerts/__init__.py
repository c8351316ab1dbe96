"""Route alerts to destinations as `alerts.toml` configures, and deliver them."""
