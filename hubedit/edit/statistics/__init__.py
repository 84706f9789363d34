"""Ordinary text and the second moments of the sites' inputs on it."""
