"""hubedit's own prompts: the forms that a fact is edited in, and facts that share a subject."""
