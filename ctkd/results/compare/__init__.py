"""Comparison of methods: paired statistics, published numbers, tables."""
