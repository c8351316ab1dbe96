"""Refusal rates: proportions and spikes."""
