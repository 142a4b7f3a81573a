"""Transforms from Program to Program: derivatives, batching, splitting and simplification."""
