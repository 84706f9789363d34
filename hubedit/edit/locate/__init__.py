"""Where facts are: causal tracing, attention's share, and the layers to edit."""
