"""What one would write instead of the worker, as well as someone who knows the libraries would."""
