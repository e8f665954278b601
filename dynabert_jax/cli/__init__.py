"""Arguments, printing and exit codes. The functions that do the work are in the other folders and print nothing.

Promises: errors that a user can fix become a message and exit code 2; results go to standard output and everything
else to standard error.
"""
