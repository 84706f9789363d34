"""Stored weights: the headers and the bytes of safetensors files."""
