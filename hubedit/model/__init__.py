"""Everything that knows architectures and tokenizers. transformers is imported when a model is loaded."""
