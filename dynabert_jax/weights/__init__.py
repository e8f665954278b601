"""Parameters to and from files, and parameters to parameters.

Promises: one table of names for both directions; nothing in a file is run; a damaged or unfitting file is an error
that names the tensors; what is written is written whole or not at all.
"""
