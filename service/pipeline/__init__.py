"""A batch's way: read its events, ask the handlers, store the effects, finish what can be finished."""
