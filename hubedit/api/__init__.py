"""hubedit from Python: the verbs of the command line, on values in memory. Their names stand in `hubedit`.

A model is an `EditableModel` of `load`; a patch is a `Patch`, its folder, or its repository on the Hub. Every
error is a `HubEditError` with a hint. docs/python.md goes through all of it.
"""
