"""Transforms from Program to Program: derivatives, batching and simplification."""
