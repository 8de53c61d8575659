"""Model profiles from a Hugging Face `config.json`."""
