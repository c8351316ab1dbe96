"""Metrics of workers, relays and the whole deployment, in the formats of Prometheus and OpenMetrics."""
