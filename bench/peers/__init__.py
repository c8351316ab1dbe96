"""Programs that an expert in the libraries would write instead of the worker."""
