"""Trains and scores methods x data x seeds from one file, one process each, resumable, with tables of the results."""
