"""Parameters to and from files, and parameters to parameters.

Promises: one table of names for both directions; no code in a file is run; a damaged file, or one that does not
fit, is an error that names the tensors; files are written atomically.
"""
