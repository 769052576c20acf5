"""Bayesian networks kept healthy in production."""
