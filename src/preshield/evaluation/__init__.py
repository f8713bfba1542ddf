"""Attacks on a defended model, and the records that they return."""
