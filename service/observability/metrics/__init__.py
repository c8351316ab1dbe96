"""Metrics of all programs and of the whole deployment, in the formats of Prometheus and OpenMetrics."""
