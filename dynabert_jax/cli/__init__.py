"""Arguments, printing and exit codes. The functions that do the work are in the other folders. They print nothing.

Promises: errors that a user can fix become a message and exit code 2. Results go to standard output, and everything
else goes to standard error.
"""
