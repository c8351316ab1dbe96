"""Traces by OpenTelemetry: the only package that imports it, with the extra `otel`."""
