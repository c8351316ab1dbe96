"""Tests of what deploy/ ships: rules, dashboard, manifests, units, images."""
