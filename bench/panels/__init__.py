"""The panels of the plots."""
