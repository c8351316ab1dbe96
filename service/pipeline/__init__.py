"""Process batches: decode events, call handlers, store their effects, write the texts that are finished."""
