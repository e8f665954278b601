"""Text to batches: rows of files, hub data sets and samples; checked texts; token ids; batches of few static shapes.

Promises: one reader for each file format, for training and for prediction; errors name the file, the row and the fix;
the same configuration and seed give the same batches. It imports no higher folder.
"""
