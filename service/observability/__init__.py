"""Health, status and metrics of a process: over HTTP, in its heartbeat file, and to systemd."""
