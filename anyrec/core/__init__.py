"""Layer 0: what every other layer uses and that knows nothing of recommending: config, errors, plugins, files."""
