"""Alerts that reach people: what is sent where (`alerts.toml`), and the sending."""
